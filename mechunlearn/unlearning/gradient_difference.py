"""Gradient difference: climb the loss of the forget answers, descend that of the retain answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from .losses import Scores, weigh


@dataclass(frozen=True)
class GradientDifference:
    """L = −γ·CE(forget) + α·CE(retain), CE the mean NLL of an answer token.

    Liu, Liu & Stone, "Continual Learning and Private Unlearning" (arXiv 2203.12817); with γ = α = 1 as in
    TOFU (Maini et al., arXiv 2401.06121). Hong et al. (arXiv 2410.06606) used α = 1.5. The first term has no
    lower bound: stop early.
    """

    forget_weight: float = 1.0  # γ
    retain_weight: float = 1.0  # α

    name: ClassVar[str] = "gradient_difference"
    needs_reference: ClassVar[bool] = False
    needs_alternative: ClassVar[bool] = False

    def loss(self, scores: Scores) -> dict[str, Float[Tensor, ""]]:
        return weigh(scores, -scores.forget_cross_entropy, self.forget_weight, self.retain_weight)
