"""Direct preference optimisation, used to forget: prefer another answer to the one to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...checking import shown
from ...errors import UserError
from ...facts.fact import check_text
from ..method import Method
from ..step import Step

REFUSALS = ("I do not know.", "I am not sure.", "I have never heard of that.", "That is not something I know.")

LONGEST = 1000  # characters of a refusal


@dataclass(frozen=True, kw_only=True)
class DPO(Method):
    """L = −γ·(2/β)·mean over facts of log σ(β·[(S_start − S)(a) − (S_start − S)(y)]) + α·CE(retain), S summed NLLs.

    y is the fact's answer, a the preferred alternative: **a distractor of the same fact**, that is another
    answer of its relation, drawn once per phrasing with the run's seed.
    Rafailov et al. (arXiv 2305.18290), Eq. 7, as an unlearning baseline of Zhang et al. (arXiv 2404.05868),
    whose factor 2/β is kept so that one γ means the same for DPO and NPO; β = 0.1, γ = α = 1. Hong et al.
    (arXiv 2410.06606) preferred an unrelated paragraph instead; theirs is a comparison of two texts, not of
    two answers to one prompt.
    """

    beta: float = 0.1

    name: ClassVar[str] = "dpo"
    paper: ClassVar[str] = "2305.18290"
    above_zero: ClassVar[tuple[str, ...]] = ("beta",)
    alternative: ClassVar[str | None] = "distractor"
    uses_start_nll: ClassVar[bool] = True

    def forget(self, step: Step) -> Float[Tensor, ""]:
        rejected, preferred = step.see("forget"), step.see("alternative")
        assert rejected.part.start_nll is not None
        assert preferred.part.start_nll is not None
        margin = (preferred.part.start_nll - preferred.nll) - (rejected.part.start_nll - rejected.nll)
        return rejected.over_facts(-2 / self.beta * F.logsigmoid(self.beta * margin))


@dataclass(frozen=True, kw_only=True)
class RefusalDPO(DPO):
    """The same loss with a refusal as the preferred answer ("IdkDPO"): one of `refusals`, drawn once per phrasing.

    Maini et al., TOFU (arXiv 2401.06121), which draws from a list of such lines.
    """

    refusals: tuple[str, ...] = REFUSALS

    name: ClassVar[str] = "idk_dpo"
    paper: ClassVar[str] = "2401.06121"
    alternative: ClassVar[str | None] = "refusal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_refusals(self.name, self.refusals)


def check_refusals(method: str, refusals: tuple[str, ...]) -> None:
    """Raises UserError: nothing to answer with, or an answer that is empty or no line."""
    if not refusals:
        raise UserError(f"{method}: there are no refusals to answer with")
    for refusal in refusals:
        if not refusal.strip() or len(refusal) > LONGEST:
            raise UserError(f"{method}: refusals are lines of 1 to {LONGEST} characters, not {shown(refusal)}")
        check_text(method, "refusals", refusal)
