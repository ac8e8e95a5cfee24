"""Direct preference optimisation, used to forget: prefer another answer to the one to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .losses import Scores, weigh


@dataclass(frozen=True)
class DPO:
    """L = −γ·(2/β)·mean over facts of log σ(β·[(S_ref − S)(a) − (S_ref − S)(y)]) + α·CE(retain), S summed
    NLLs.

    y is the fact's answer, a the preferred alternative: **a distractor of the same fact**, that is another
    answer of its relation, drawn once per phrasing with the run's seed.
    Rafailov et al. (arXiv 2305.18290), Eq. 7, as an unlearning baseline of Zhang et al. (arXiv 2404.05868),
    whose factor 2/β is kept so that one γ means the same for DPO and NPO; β = 0.1, γ = α = 1. Hong et al.
    (arXiv 2410.06606) preferred an unrelated paragraph instead; theirs is a comparison of two texts, not of
    two answers to one prompt.
    """

    beta: float = 0.1
    forget_weight: float = 1.0  # γ
    retain_weight: float = 1.0  # α

    name: ClassVar[str] = "dpo"
    needs_reference: ClassVar[bool] = True
    needs_alternative: ClassVar[bool] = True

    def loss(self, scores: Scores) -> dict[str, Float[Tensor, ""]]:
        assert scores.reference is not None
        assert scores.alternative is not None
        assert scores.alternative_reference is not None
        preferred = scores.alternative_reference - scores.alternative.nll
        rejected = scores.reference - scores.forget.nll
        forget = scores.forget_mean(-2 / self.beta * F.logsigmoid(self.beta * (preferred - rejected)))
        return weigh(scores, forget, self.forget_weight, self.retain_weight)
