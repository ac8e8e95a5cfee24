"""Gradient difference: climb the loss of the forget answers, descend that of the retain answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class GradientDifference(Method):
    """L = −γ·CE(forget) + α·CE(retain), CE the mean NLL of an answer token; with `retain="kl"` it is GA + KL.

    Liu, Liu & Stone, "Continual Learning and Private Unlearning" (arXiv 2203.12817); with γ = α = 1 as in
    TOFU (Maini et al., arXiv 2401.06121), which also has the KL form. Hong et al. (arXiv 2410.06606) used α = 1.5.
    The first term has no lower bound: stop early, or give a budget.
    """

    name: ClassVar[str] = "gradient_difference"
    paper: ClassVar[str] = "2401.06121"

    def forget(self, step: Step) -> Float[Tensor, ""]:
        return -step.see("forget").cross_entropy
