"""Negative preference optimisation: gradient ascent that lets go of a fact once it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .losses import Scores, weigh


@dataclass(frozen=True)
class NPO:
    """L = −γ·(2/β)·mean over facts of log σ(β·(S − S_ref)) + α·CE(retain), S the answer's *summed* NLL.

    Zhang et al., "Negative Preference Optimization" (arXiv 2404.05868), Eq. 3 with the retain term of their
    NPO+RT; β = 0.1, γ = α = 1. The factor 2/β is the paper's: it makes the gradient at the start model −∇S
    whatever β is, and −2·σ(−β·(S − S_ref))·∇S after that.
    """

    beta: float = 0.1
    forget_weight: float = 1.0  # γ
    retain_weight: float = 1.0  # α

    name: ClassVar[str] = "npo"
    needs_reference: ClassVar[bool] = True
    needs_alternative: ClassVar[bool] = False

    def loss(self, scores: Scores) -> dict[str, Float[Tensor, ""]]:
        assert scores.reference is not None
        risen = scores.forget.nll - scores.reference
        forget = scores.forget_mean(-2 / self.beta * F.logsigmoid(self.beta * risen))
        return weigh(scores, forget, self.forget_weight, self.retain_weight)
