"""Blocks by number, or by share of the depth, so that a default from one model suits another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..models import slots

Place = int | float
"""An integer counts blocks, a float is a share of the depth: 7 and 7 / 32 mean the same in a model of 32."""


def boundary(place: Place, n_layers: int) -> int:
    """A place between blocks, by how many lie in front of it.

    Raises:
        UserError: a place outside the model.
    """
    found = math.floor(place * n_layers + 0.5) if isinstance(place, float) else place
    if not 0 <= found <= n_layers:
        raise UserError(
            f"layer {place} lies outside a model of {n_layers}: give a whole number up to that, "
            "or a share of the depth between 0.0 and 1.0"
        )
    return found


def block(place: Place, n_layers: int) -> int:
    """The block that begins there, counted from 0; the last one where a share says the end.

    Raises:
        UserError: a block that the model lacks.
    """
    found = boundary(place, n_layers)
    if found == n_layers and not isinstance(place, float):
        raise UserError(f"there is no block {place}: the model has blocks 0 to {n_layers - 1}")
    return min(found, n_layers - 1)


def span(places: tuple[Place, Place], n_layers: int) -> range:
    """The blocks from the first place to before the second; at least one, however shallow the model, between shares.

    Raises:
        UserError: no block lies between them.
    """
    first, last = block(places[0], n_layers), boundary(places[1], n_layers)
    if isinstance(places[1], float) and places[0] < places[1]:
        last = max(last, first + 1)
    if last <= first:
        raise UserError(f"there are no blocks from {places[0]} to before {places[1]} in a model of {n_layers}")
    return range(first, last)


def parameters_in(model: TransformerBridge, layers: Iterable[int], roles: Iterable[str]) -> tuple[str, ...]:
    """Regular expressions for the parameters of these roles (see `mechunlearn.sites`) in these blocks.

    Raises:
        UserError: this architecture has none.
    """
    chosen, wanted = set(layers), set(roles)
    found = [slot.name for slot in slots(model) if slot.layer in chosen and wanted & set(slot.roles)]
    if not found:
        raise UserError(
            f"{type(model.original_model).__name__} has no {' or '.join(sorted(wanted))} in blocks "
            f"{sorted(chosen)}, which this method trains: name what to train (trainable=…)"
        )
    return tuple(f"^{re.escape(name)}$" for name in found)
