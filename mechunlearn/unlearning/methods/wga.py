"""Weighted gradient ascent: climb the loss of each answer token as steeply as the model still knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ...checking import check_number
from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class WGA(Method):
    """L = −γ·mean over answer tokens of p^β·(−log p) + α·CE(retain), no gradient through the weight p^β.

    Wang et al., "Rethinking LLM Unlearning Objectives" (arXiv 2502.19301); β = γ = α = 1 as in open-unlearning.
    With β = 0 it is gradient difference; with β = 1 the gradient is that of the tokens' probability p.
    """

    beta: float = 1.0

    name: ClassVar[str] = "wga"
    paper: ClassVar[str] = "2502.19301"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(f"{self.name}: beta", self.beta, least=0)

    def forget(self, step: Step) -> Float[Tensor, ""]:
        seen = step.see("forget")
        weight = (-self.beta * seen.token_nll.detach()).exp()
        return -seen.over_answers(weight * seen.token_nll)
