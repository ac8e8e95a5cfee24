"""Grids that weights are rounded to: int8, int4 and NormalFloat-4."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import UserError

BLOCK = 64
# The sixteen values of NormalFloat-4, as arXiv 2305.14314 lists them (appendix E).
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# Levels of a block whose largest weight is 1, and how many weights along the input axis share a scale (None: a row).
SCHEMES: dict[str, tuple[tuple[float, ...], int | None]] = {
    "int8": (tuple(code / 127 for code in range(-127, 128)), None),
    "int4": (tuple(code / 7 for code in range(-7, 8)), BLOCK),
    "nf4": (NF4, BLOCK),
}


def quantise(weights: Float[Tensor, "outputs inputs"], scheme: str) -> Float[Tensor, "outputs inputs"]:
    """The weights rounded to the nearest level of their block, as numbers of the same precision again.

    Raises:
        UserError: unknown scheme.
    """
    levels, scaled, largest = _scaled(weights, scheme)
    return _flat(levels[_nearest(levels, scaled)] * largest, weights)


def bin_width(weights: Float[Tensor, "outputs inputs"], scheme: str) -> Float[Tensor, "outputs inputs"]:
    """The distance between the two levels that each weight lies between: rounding moves it by half of that at most.

    Raises:
        UserError: unknown scheme.
    """
    levels, scaled, largest = _scaled(weights, scheme)
    above = torch.bucketize(scaled, levels).clamp(1, len(levels) - 1)
    return _flat((levels[above] - levels[above - 1]) * largest, weights)


def codes(weights: Float[Tensor, "outputs inputs"], scheme: str) -> Int[Tensor, "outputs inputs"]:
    """The number of the level of its block that each weight is rounded to, from 0.

    Raises:
        UserError: unknown scheme.
    """
    levels, scaled, _ = _scaled(weights, scheme)
    return rearrange(_nearest(levels, scaled), "out b size -> out (b size)")[:, : weights.shape[-1]]


def known(scheme: str) -> tuple[tuple[float, ...], int | None]:
    """The levels of a scheme, and how many weights share a scale.

    Raises:
        UserError: unknown scheme.
    """
    if scheme not in SCHEMES:
        raise UserError(f"quantise: scheme={scheme!r} is not one of {', '.join(SCHEMES)}")
    return SCHEMES[scheme]


def _scaled(weights: Float[Tensor, "outputs inputs"], scheme: str) -> tuple[Tensor, Tensor, Tensor]:
    """(levels [level], the weights in units of their block's largest [outputs block size], the largest)."""
    values, block = known(scheme)
    weights = weights.detach().to(torch.promote_types(weights.dtype, torch.float32)).contiguous()
    size = min(block or weights.shape[-1], weights.shape[-1])
    blocks = rearrange(
        nn.functional.pad(weights, (0, -weights.shape[-1] % size)), "out (b size) -> out b size", size=size
    )
    largest = blocks.abs().amax(-1, keepdim=True)
    return weights.new_tensor(values), blocks / largest.where(largest > 0, 1.0), largest


def _nearest(levels: Float[Tensor, " level"], scaled: Float[Tensor, "out b size"]) -> Int[Tensor, "out b size"]:
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)


def _flat(
    blocks: Float[Tensor, "out b size"], like: Float[Tensor, "outputs inputs"]
) -> Float[Tensor, "outputs inputs"]:
    return rearrange(blocks, "out b size -> out (b size)")[:, : like.shape[-1]].to(like.dtype)
