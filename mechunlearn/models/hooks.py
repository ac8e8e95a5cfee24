"""TransformerLens hooks for the time of a block of code."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..undoing import undone, unhooked
from .checkpoint import hf

LEVELS = itertools.count(1_000)  # every `hooked` has a level of its own: it takes away its hooks and no others


class Enough(Exception):  # noqa: N818 - not an error
    """Raised inside a forward pass to leave it: what follows is not needed."""


@runtime_checkable
class Hook(Protocol):
    """A TransformerLens hook function: sees an activation, and returns another one or None to leave it."""

    def __call__(self, tensor: Tensor, *, hook: HookPoint) -> Tensor | None: ...


@contextmanager
def hooked(model: TransformerBridge, hooks: Iterable[tuple[str, Hook]]) -> Iterator[None]:
    """TransformerLens hooks for the time of a block; the user's, and those of blocks around it, stay as they are."""
    level, chosen = next(LEVELS), [(hook_point(model, name), function) for name, function in hooks]

    def away() -> None:
        for point, _ in chosen:
            point.remove_hooks("fwd", level=level)

    with unhooked([point for point, _ in chosen], known=_written_down), undone(away):
        for point, function in chosen:
            point.add_hook(function, level=level)
        yield


def hook_point(model: TransformerBridge, name: str) -> HookPoint:
    """The hook point of that name (aliases included)."""
    point = model.get_hook_point(name)
    if point is None:
        raise UserError(f"{type(hf(model)).__name__} has no hook {name}")
    return point


def _written_down(point: nn.Module) -> set[int]:
    """The hooks that TransformerLens knows of."""
    return {handle.hook.id for handle in cast(HookPoint, point).fwd_hooks}
