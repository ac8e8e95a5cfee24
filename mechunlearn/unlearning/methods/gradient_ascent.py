"""Gradient ascent: climb the loss of the forget answers, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """L = −γ·CE(forget), CE the mean NLL of an answer token; nothing is retained.

    Jang et al., "Knowledge Unlearning for Mitigating Privacy Risks" (arXiv 2210.01504). It has no lower bound and takes
    the rest of the model with it: give it a budget.
    """

    retain_weight: float = 0.0

    name: ClassVar[str] = "gradient_ascent"
    paper: ClassVar[str] = "2210.01504"

    def forget(self, step: Step) -> Float[Tensor, ""]:
        return -step.see("forget").cross_entropy
