"""What a run will cost, said before it starts."""

from __future__ import annotations

from itertools import islice

from tqdm.auto import tqdm

from ..models import hf
from .batches import assemble, draw
from .stage import Stage

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 0}  # copies of the trained weights that the optimiser keeps
# Numbers that the backward pass needs of a token and block, beside the MLP, in residual widths.
ACTIVATIONS = 14


def announce(stage: Stage) -> None:
    """Print rows and tokens of a step, what is trained, and about how much memory it takes."""
    tqdm.write(describe(stage))


def describe(stage: Stage) -> str:
    """One line about the stage's cost. The memory of activations is an estimate from the model's widths."""
    options, model, config = stage.options, stage.start, stage.start.cfg
    drawn = list(islice(draw(stage.sources, options.batch, options.seed), 4))
    pieces = [piece for step in drawn for piece in assemble(stage.sources, step, options.accumulation)]
    rows = sum(len(index) for index in drawn[0].values())
    tokens = sum(piece.n_tokens for piece in pieces) / len(drawn)
    total = sum(parameter.numel() for parameter in hf(model).parameters())
    chosen = options.parameters(stage.method, model)
    trained = sum(parameter.numel() for parameter in chosen)
    # Start model and copy; gradients, moments and the state to go back to of what is trained.
    weights = 2 * total + (2 + MOMENTS[options.optimizer] + 1 + MOMENTS[options.optimizer]) * trained
    largest = max(part.tokens.ids.numel() for piece in pieces for part in piece.parts.values())
    width = ACTIVATIONS * config.d_model + 4 * (config.d_mlp or 4 * config.d_model)
    activations = largest * config.n_layers * width + 3 * largest * config.d_vocab
    size = 4 * (weights + activations)
    return (
        f"{stage.method.name}: {rows} rows, about {tokens:,.0f} tokens a step in {options.accumulation} piece(s); "
        f"trains {trained:,} of {total:,} parameters; about {size / 2**30:.2g} GiB of memory"
    )
