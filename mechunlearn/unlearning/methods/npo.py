"""Negative preference optimisation: gradient ascent that lets go of a fact once it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class NPO(Method):
    """L = −γ·(2/β)·mean over facts of log σ(β·(S − S_start)) + α·CE(retain), S the answer's *summed* NLL.

    Zhang et al., "Negative Preference Optimization" (arXiv 2404.05868), Eq. 3 with the retain term of their
    NPO+RT (`retain="kl"`: NPO+KL); β = 0.1, γ = α = 1. The factor 2/β is the paper's: it makes the gradient at the
    start model −∇S whatever β is, and −2·σ(−β·(S − S_start))·∇S after that.
    """

    beta: float = 0.1

    name: ClassVar[str] = "npo"
    paper: ClassVar[str] = "2404.05868"
    above_zero: ClassVar[tuple[str, ...]] = ("beta",)
    uses_start_nll: ClassVar[bool] = True

    def forget(self, step: Step) -> Float[Tensor, ""]:
        seen = step.see("forget")
        assert seen.part.start_nll is not None
        risen = seen.nll - seen.part.start_nll
        return seen.over_facts(-2 / self.beta * F.logsigmoid(self.beta * risen))
