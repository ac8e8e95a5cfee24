"""Noise on the weights: does what was hidden come back when the weights are shaken?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ...models import clone
from ..base import Attack, Attempt, Given
from ..weights import matrices, share


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Gaussian noise on every weight matrix inside the blocks, in units of that matrix's own standard deviation.

    The draws follow from the seed alone: every scale, and every model that is attacked, meets the same ones.

    Attributes:
        scales: standard deviations of the noise, each a setting.
        draws: how many times noise is drawn, each a part.
    """

    scales: tuple[float, ...] = (0.01, 0.03, 0.1)
    draws: int = 3

    name: ClassVar[str] = "noise"
    source: ClassVar[str] = "mechunlearn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or min(self.scales) < 0 or self.draws < 1:
            raise UserError("noise: scales must be one number or more, none below 0, and draws at least 1")

    def reaches(self, model: TransformerBridge) -> float:
        return share(model, matrices(model))

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        copied, questions = clone(model), given.questions()
        for scale in self.scales:
            for draw in range(self.draws):
                _shake(model, copied, scale, given.seed * 10_007 + draw)
                yield Attempt(copied, questions, f"{scale:g} standard deviations", f"draw {draw + 1}")


@torch.no_grad()
def _shake(model: TransformerBridge, copied: TransformerBridge, scale: float, seed: int) -> None:
    """Give the copy the model's weights with noise on top."""
    generator = torch.Generator().manual_seed(seed)
    for source, target in zip(matrices(model), matrices(copied), strict=True):
        weights = source.tensor.to(torch.promote_types(source.tensor.dtype, torch.float32))
        noise = torch.randn(weights.shape, generator=generator).to(weights)
        target.tensor.copy_(weights + scale * weights.std(correction=0) * noise)
