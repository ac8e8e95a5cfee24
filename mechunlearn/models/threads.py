"""How many threads compute: matrices of a small model are too small to share out, so that threads only wait."""

from __future__ import annotations

import os

import torch
from transformer_lens.model_bridge import TransformerBridge

SMALL = 20_000_000  # parameters
CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # whoever sets one of these has chosen


def fit_threads(model: TransformerBridge) -> None:
    """From here to the end of a verb one thread computes, where the model is small, on a CPU, and nobody has chosen.

    `undoing.as_found`, which stands around every verb, puts the number back.
    """
    if any(name in os.environ for name in CHOSEN):
        return
    first = next(model.parameters())
    if first.device.type == "cpu" and sum(part.numel() for part in model.original_model.parameters()) < SMALL:
        torch.set_num_threads(1)
