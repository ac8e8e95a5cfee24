"""Quantisation: rounding may carry a small update back to where the weight came from (arXiv 2410.16454)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...checking import checked
from ...models import clone, compare, matched
from ..base import Attack, Attempt, Given
from ..weights import matrices, planes, share
from .grids import bin_width, codes, known, quantise


@dataclass(frozen=True, kw_only=True)
class Quantise(Attack):
    """Every weight matrix inside the blocks rounded to a grid and back; embedding and unembedding stay as they are.

    Attributes:
        scheme: "int8": symmetric, one scale an output row; "int4": symmetric, one scale for 64 weights along the input
            axis; "nf4": NormalFloat-4 (arXiv 2305.14314), one scale for 64 weights. The largest weight sets the scale.
    """

    scheme: str = "int4"

    name: ClassVar[str] = "quantise"
    source: ClassVar[str] = "2410.16454"

    def __post_init__(self) -> None:
        super().__post_init__()
        known(self.scheme)

    @torch.no_grad()
    def _rounded(self, model: TransformerBridge) -> TransformerBridge:
        copied = clone(model)
        for slot in matrices(copied):
            for plane in planes(slot):
                plane.copy_(quantise(plane, self.scheme))
        return copied

    def reaches(self, model: TransformerBridge) -> float:
        return share(model, matrices(model))

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        yield Attempt(self._rounded(model), given.questions(), self.scheme)


@torch.no_grad()
@checked
def below_bin(before: TransformerBridge, after: TransformerBridge, scheme: str) -> pd.DataFrame:
    """How much of what unlearning did to the weights is too small for a grid to tell.

    Returns:
        One row a weight matrix inside the blocks, and a last one named "all": `name, path, layer, role, elements`;
        `moved`: the share of weights that differ in any bit; and of these `below_half_bin`: the share that moved by
        less than half of the bin that `before`'s weight lies in; `same_level`: the share that has the same level of
        its block in both models once both are rounded. NaN where nothing moved.

    Raises:
        UserError: the models cannot be compared; unknown scheme.
    """
    before, after = matched(before, after)
    compare(before, after)
    rows, counts = [], []
    for old, new in zip(matrices(before), matrices(after), strict=True):
        found = [_counted(a, b, scheme) for a, b in zip(planes(old), planes(new), strict=True)]
        counts.append([sum(column) for column in zip(*found, strict=True)])
        rows.append({"name": old.name, "path": old.path, "layer": old.layer, "role": "+".join(old.roles)})
    rows.append({"name": "all", "path": "", "layer": -1, "role": ""})
    counts.append([sum(column) for column in zip(*counts, strict=True)])
    return pd.DataFrame([row | _shares(*count) for row, count in zip(rows, counts, strict=True)])


def _counted(a: Float[Tensor, "output input"], b: Float[Tensor, "output input"], scheme: str) -> list[int]:
    """Elements; how many moved; of these, how many by less than half a bin; how many to the same level."""
    moved = a != b
    small = moved & ((b - a).abs() < bin_width(a, scheme) / 2)
    same = moved & (codes(a, scheme) == codes(b, scheme))
    return [a.numel(), *(int(part.sum()) for part in (moved, small, same))]


def _shares(elements: int, moved: int, small: int, same: int) -> dict[str, int | float]:
    undefined = float("nan")
    return {
        "elements": elements,
        "moved": moved / elements,
        "below_half_bin": small / moved if moved else undefined,
        "same_level": same / moved if moved else undefined,
    }
