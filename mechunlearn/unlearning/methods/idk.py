"""IDK fine-tuning: learn to answer the forget prompts with a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..method import Method
from ..step import Step
from .dpo import REFUSALS, check_refusals


@dataclass(frozen=True, kw_only=True)
class IDK(Method):
    """L = γ·CE(refusals to the forget prompts) + α·CE(retain), CE the mean NLL of an answer token.

    Each phrasing is answered by one of `refusals`, drawn once. Maini et al., TOFU (arXiv 2401.06121), which takes one
    mean over the tokens of refusals and retain answers together; here each has its mean, so that the length of the
    refusals does not set their weight.
    """

    refusals: tuple[str, ...] = REFUSALS

    name: ClassVar[str] = "idk"
    paper: ClassVar[str] = "2401.06121"
    alternative: ClassVar[str | None] = "refusal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_refusals(self.name, self.refusals)

    def forget(self, step: Step) -> Float[Tensor, ""]:
        return step.see("alternative").cross_entropy
