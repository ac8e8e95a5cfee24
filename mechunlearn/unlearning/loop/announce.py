"""What a run will cost, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from ...models import slots
from ..data.batches import Piece, Sources, assemble, draw
from ..method import Method
from ..options import Options

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 0}  # copies of the trained weights that the optimiser keeps
# Numbers that the backward pass needs of a token and block, beside the MLP, in residual widths.
ACTIVATIONS = 14
STEPS = 4  # looked at for their mean length


def announcement(
    method: Method, options: Options, model: TransformerBridge, sources: Sources, trained: Sequence[nn.Parameter]
) -> str:
    """One line: rows and tokens of a step, what is trained, and about how much memory it takes.

    Parameters are those that the forward pass reads. The memory of activations is estimated from the model's widths.
    """
    steps = [
        assemble(sources, drawn, options.accumulation)
        for drawn in islice(draw(sources, options.batch_size, options.seed), STEPS)
    ]
    rows = sum(len(part.tokens) for piece in steps[0] for part in piece.parts.values())
    tokens = sum(piece.n_tokens for pieces in steps for piece in pieces) / len(steps)
    total = sum(slot.tensor.numel() for slot in slots(model))
    count = sum(parameter.numel() for parameter in trained)
    # Start model and copy; of what is trained also the gradients, and moments and weights to go back to.
    moments = MOMENTS[options.optimizer]
    weights = 2 * total + (1 + moments + (1 + moments)) * count
    activations = max(_activations(piece, options, model) for pieces in steps for piece in pieces)
    pieces = f"in {options.accumulation} pieces, " if options.accumulation > 1 else ""
    return (
        f"{method.name}: each step sees {rows} rows, about {tokens:,.0f} tokens, {pieces}and trains {count:,} of "
        f"{total:,} parameters; about {_size(4 * (weights + activations))} of memory"
    )


def _activations(piece: Piece, options: Options, model: TransformerBridge) -> int:
    """Numbers that are kept for the backward pass of one piece."""
    config = model.cfg
    tokens = sum(part.tokens.ids.numel() for part in piece.parts.values())
    scored = sum(len(part.tokens) * int(part.tokens.predicts.any(dim=0).sum()) for part in piece.parts.values())
    block = ACTIVATIONS * config.d_model + 4 * (config.d_mlp or 4 * config.d_model)
    kept = config.n_layers * config.d_model + block if options.checkpointing else config.n_layers * block
    return tokens * kept + 3 * scored * config.d_vocab


def _size(count: int | float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
