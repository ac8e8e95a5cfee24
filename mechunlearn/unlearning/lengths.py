"""How long a model's activations are: the measure for settings that are lengths themselves."""

from __future__ import annotations

import math

import torch
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..models import hf
from ..training import borrowed
from .data.batches import Sources, assemble
from .data.rows import Rows
from .step import Step


def mean_length(model: TransformerBridge, rows: Rows, hook: str, size: int) -> float:
    """Mean ‖h‖ over the tokens of all rows (without BOS and padding), `size` rows in a forward pass.

    Raises:
        UserError: a hook that does not fire; a mean that is 0 or no number.
    """
    total, device = 0.0, next(hf(model).parameters()).device
    with borrowed(hf(model)):
        hf(model).eval()
        for chosen in torch.arange(len(rows)).split(size):
            piece = assemble(Sources(forget=rows), {"forget": chosen}, 1)[0].to(device)
            seen = Step(model, model, piece).start("forget", [hook], logits=False)
            total += float(torch.linalg.vector_norm(seen.states[hook], dim=-1)[seen.part.valid].double().sum())
    mean = total / int(rows.valid.sum())
    if not (math.isfinite(mean) and mean > 0):
        raise UserError(f"the activations at {hook} have a mean length of {mean} on the facts to forget")
    return mean
