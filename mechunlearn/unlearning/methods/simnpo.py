"""SimNPO: negative preference optimisation without a start model, by the mean log-likelihood of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class SimNPO(Method):
    """L = −γ·(2/β)·mean over facts of log σ(β·(S/n − δ)) + α·CE(retain), S the answer's NLL and n its tokens.

    Fan et al., "Simplicity Prevails" (arXiv 2410.07163), whose δ is called γ there; β = 4.5, δ = 0, γ = 0.125, α = 1
    as in open-unlearning (the authors' TOFU settings are β = 2.5, γ = 0.1375). The margin is the answer's mean NLL, so
    that long answers do not count as forgotten for their length, and the model before plays no part.
    """

    forget_weight: float = 0.125
    beta: float = 4.5
    delta: float = 0.0

    name: ClassVar[str] = "simnpo"
    paper: ClassVar[str] = "2410.07163"
    above_zero: ClassVar[tuple[str, ...]] = ("beta",)

    def forget(self, step: Step) -> Float[Tensor, ""]:
        seen = step.see("forget")
        margin = seen.nll / seen.lengths - self.delta
        return seen.over_facts(-2 / self.beta * F.logsigmoid(self.beta * margin))
