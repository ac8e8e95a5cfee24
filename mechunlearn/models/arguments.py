"""What else a block is called with, and which of it belongs to single rows of the batch.

A block gets masks, rotary angles, biases of distance beside the residual stream. A pass over other rows must give each
row its own part of them. Which axis holds the rows cannot be read off one batch: MPT's biases are heads × 1 × keys,
BLOOM's (rows · heads) × 1 × keys, and four heads look like four rows. So it is found out: the model runs on two and on
three short rows, and an axis that is two to three times something is the rows' axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..errors import UserError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional after the residual stream, by keyword
Place = tuple[Any, ...]  # of a tensor within the arguments of a block: indices and keys
Layout = dict[tuple[int, Place], int | None]  # (block, place) -> the axis of rows; None: all rows share the tensor
Run = Callable[[Int[Tensor, "row pos"], Int[Tensor, "row pos"]], list[Arguments]]  # ids, attention mask

INERT = (bool, int, float, str, torch.dtype, torch.device, type(None))  # what a block cannot leave anything in

_found: WeakKeyDictionary[nn.Module, Layout] = WeakKeyDictionary()
TWO, THREE, COLUMNS = 2, 3, 5


@dataclass(frozen=True)
class Rows:
    """Which rows of a recorded batch of `width` rows are wanted."""

    facts: Int[Tensor, " row"]
    width: int

    def of(self, value: Tensor, axis: int) -> Tensor:
        """These rows of an argument; where an axis holds rows · something (BLOOM), that much of each."""
        parts = value.unflatten(axis, (self.width, -1))
        return parts.index_select(axis, self.facts.to(value.device)).flatten(axis, axis + 1)


def layout(model: nn.Module, run: Run, device: torch.device) -> Layout:
    """Where the rows lie in every argument of every block; found once a model.

    Args:
        run: one pass of the model, which gives the arguments of its blocks.

    Raises:
        UserError: an argument has rows along two axes, is there for some batches only, or is an object in which
            blocks may leave something for later blocks (Gemma 4's shared keys), which no pass from the middle has.
    """
    if model not in _found:
        seen: Layout = {}
        for padded in (False, True):
            two, three = (_tensors(run(*_batch(rows, padded, device))) for rows in (TWO, THREE))
            if two.keys() != three.keys():
                place = sorted(map(str, two.keys() ^ three.keys()))[0]
                raise UserError(f"argument {place} of a block is there for some numbers of rows only; no pass resumes")
            for (
                place,
                tensor,
            ) in two.items():  # a mask that all rows share may still be a row's own once there is padding
                axis = _axis(tensor, three[place], place)
                seen[place] = seen.get(place) if axis is None else axis
        _found[model] = seen
    return _found[model]


def select(arguments: Arguments, number: int, known: Layout, rows: Rows, done: dict[int, Any]) -> Arguments:
    """The arguments of block `number` for these rows. Blocks share most of them: each is selected once (`done`).

    Raises:
        UserError: a tensor that was not there when the layout was found.
    """

    def chosen(value: Any, place: Place) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(chosen(part, (*place, index)) for index, part in enumerate(value))
        if isinstance(value, dict):
            return {name: chosen(part, (*place, name)) for name, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        if (number, place) not in known:
            raise UserError(f"block {number} is called with {_words(place)}, which short batches do not show")
        axis = known[number, place]
        if axis is None or (value.shape[axis] == 1 and rows.width > 1):
            return value
        if id(value) not in done:
            done[id(value)] = rows.of(value, axis)
        return done[id(value)]

    return chosen(arguments[0], (0,)), chosen(arguments[1], (1,))


def _batch(rows: int, padded: bool, device: torch.device) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """Short rows of token 1; with `padded`, the last of another length than the others."""
    attention = torch.ones(rows, COLUMNS, dtype=torch.long, device=device)
    if padded:
        attention[-1, -2:] = 0
    return torch.ones_like(attention), attention


def _tensors(blocks: list[Arguments]) -> dict[tuple[int, Place], Tensor]:
    return {
        (number, place): tensor
        for number, arguments in enumerate(blocks)
        for place, tensor in _walk(arguments, ())
    }  # fmt: skip


def _walk(value: Any, place: Place) -> Iterator[tuple[Place, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, tuple | list | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(part, (*place, key))
    elif not isinstance(value, INERT):
        raise UserError(
            f"blocks are called with {_words(place)}, a {type(value).__name__}, in which one may leave something for "
            "another; no pass can begin between them, so this architecture is not supported"
        )


def _axis(two: Tensor, three: Tensor, place: tuple[int, Place]) -> int | None:
    """The axis along which three rows are half as many again as two."""
    if two.dim() != three.dim():
        raise UserError(f"block {place[0]}: {_words(place[1])} changes its number of axes with the rows")
    grown = [axis for axis, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    if not grown:
        return None
    (axis, *more) = grown
    if more or two.shape[axis] * THREE != three.shape[axis] * TWO:
        shapes = f"{tuple(two.shape)} for two rows, {tuple(three.shape)} for three"
        raise UserError(f"block {place[0]}: {_words(place[1])} has no axis of rows of its own ({shapes})")
    return axis


def _words(place: Place) -> str:
    kind, *inside = place
    return ("argument " if kind == 0 else "") + ".".join(map(str, inside))
