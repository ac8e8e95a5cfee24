"""What unlearning did to the residual stream, on average, where a model is about to answer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...facts import Facts, tokenize
from ...models import compare
from ...models.forward import measuring, record, rows_at_once
from ...models.properties import context_of, device_of, tokenizer_of
from ..splits import groups

SAME = 1e-5  # a change smaller than this part of the mean's length is rounding, not unlearning


def hook_name(layer: int) -> str:
    """The residual stream behind a block."""
    return f"blocks.{layer}.hook_resid_post"


def shifts(
    after: TransformerBridge, before: TransformerBridge, forget: Facts
) -> Iterator[tuple[str, Facts, Float[Tensor, "layer d_model"]]]:
    """(part in words, facts to ask for, mean residual of `after` − mean residual of `before` over all other parts).

    Nothing of the asked facts is in the means. Rows of layers that unlearning left as they were are 0.

    Raises:
        UserError: the models cannot be compared; facts that cannot be parted, or that are longer than the context.
    """
    compare(before, after)
    parts = groups(forget)
    sums = {name: [_summed(model, facts) for model in (after, before)] for name, facts in parts.items()}
    for name, facts in parts.items():
        others = [other for other in parts if other != name]
        count = sum(len(parts[other]) for other in others)
        new, old = (torch.stack([sums[other][which] for other in others]).sum(0) / count for which in (0, 1))
        shift = new - old
        changed = shift.norm(dim=-1, keepdim=True) > SAME * old.norm(dim=-1, keepdim=True)
        yield f"all but {name}", facts, shift * changed


def _summed(model: TransformerBridge, facts: Facts, batch_size: int = 32) -> Float[Tensor, "layer d_model"]:
    """The residual stream behind every block at the last token of the prompt, summed over the facts."""
    tokens = tokenize(facts, tokenizer_of(model), context=context_of(model))
    total = torch.zeros(model.cfg.n_layers, model.cfg.d_model, dtype=torch.float64)
    with measuring(model):
        size = rows_at_once(model, batch_size, tokens.ids.shape[1])
        for first in range(0, len(tokens), size):
            batch = tokens[first : first + size].trim().to(device_of(model))
            rows, last = torch.arange(len(batch)), batch.predicts.int().argmax(1)
            for layer, behind in enumerate(record(model, batch).entries[1:]):
                total[layer] += behind[rows, last].cpu().double().sum(0)
    return total
