"""Interpolation of weights: how far along the way back does the knowledge return?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ...models import clone, compare, matched, slots
from ..base import Attack, Attempt, Given, before_of


@dataclass(frozen=True, kw_only=True)
class Interpolate(Attack):
    """after + share·(before − after), in every parameter that the forward pass reads.

    It hands the knowledge back in part, so what counts is the share at which it returns. A never-knew twin that was
    trained by itself lies on no straight way to `before`; between them both may be lost.

    Attributes:
        shares: of the way back to `before`, from 0 to 1, each a setting.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)

    name: ClassVar[str] = "interpolate"
    source: ClassVar[str] = "mechunlearn"
    needs_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares or min(self.shares) < 0 or max(self.shares) > 1:
            raise UserError("interpolate: shares must be one number or more, each from 0 to 1")

    def reaches(self, model: TransformerBridge) -> float:  # noqa: ARG002
        return 1.0

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        before, model = matched(before_of(self, given), model)
        compare(before, model)
        copied, questions = clone(model), given.questions()
        for share in self.shares:
            _mix(before, model, share, copied)
            yield Attempt(copied, questions, f"{share:g} of the way to before")


@torch.no_grad()
def _mix(before: TransformerBridge, after: TransformerBridge, share: float, copied: TransformerBridge) -> None:
    """Give the copy the weights that lie at this share of the way from `after` to `before`."""
    for old, new, target in zip(slots(before), slots(after), slots(copied), strict=True):
        target.tensor.copy_(torch.lerp(new.tensor, old.tensor, share))
