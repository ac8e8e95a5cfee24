"""Pruning as an attack: does what was hidden come back when the smallest weights are taken out?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformer_lens.model_bridge import TransformerBridge

from mechunlearn import UserError, clone
from mechunlearn.attacks import ATTACKS, Attack, Attempt, Given, matrices


@dataclass(frozen=True, kw_only=True)
class Prune(Attack):
    """Set the smallest weights of every matrix inside the blocks to zero, by magnitude.

    Attributes:
        shares: of each matrix's weights, between 0 and 1; each is a setting.
    """

    shares: tuple[float, ...] = (0.1, 0.2, 0.3)

    name: ClassVar[str] = "prune"
    source: ClassVar[str] = "an example"

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise UserError("prune: shares must be numbers between 0 and 1")

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        copied, questions = clone(model), given.questions()
        for share in self.shares:
            for source, target in zip(matrices(model), matrices(copied), strict=True):
                with torch.no_grad():  # not around the yield: whoever asks decides that for themselves
                    size = source.tensor.abs()
                    largest_gone = size.flatten().kthvalue(max(1, int(share * size.numel()))).values
                    target.tensor.copy_(source.tensor.masked_fill(size <= largest_gone, 0))
            yield Attempt(copied, questions, f"{share:.0%} of the weights")


ATTACKS["prune"] = Prune()  # so that it has a name on the command line and in lists of attacks
