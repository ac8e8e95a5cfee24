"""What is changed for a time and put back, however it ends: Ctrl-C can come anywhere, also while something is put back.

`undone` notes how to put a change back before the change is made, and forgets the note when that is done. Where an
interrupt keeps it from being done, the note is left; `as_found`, which stands around every verb, puts back on its way
in and out what is left by functions that run no more.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import FrameType
from typing import ParamSpec, TypeVar

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode

TABLES = (  # where torch keeps a module's hooks
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip
BETWEEN = ("contextlib", "jaxtyping", "beartype")  # they call one another for the function that holds a change
Given = ParamSpec("Given")
Found = TypeVar("Found")


class undone:  # noqa: N801 - used as a statement, like contextlib.suppress
    """Whatever is changed in this block is put back by `undo`, which does no harm where nothing was changed."""

    notes: list[undone] = []  # noqa: RUF012 - of all threads: what may have to be put back

    def __init__(self, undo: Callable[[], object]) -> None:
        self.undo = undo
        self.holder: FrameType | None = None

    def __enter__(self) -> undone:
        self.holder = _holder(sys._getframe(1))
        undone.notes.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.put_back()

    def put_back(self) -> None:
        """Undo, and forget about it."""
        self.undo()
        self.holder = None
        if self in undone.notes:
            undone.notes.remove(self)


@contextlib.contextmanager
def unhooked(modules: Iterable[nn.Module], known: Callable[[nn.Module], set[int]] = lambda _: set()) -> Iterator[None]:
    """These modules are rid afterwards of the hooks that they got inside, also of one that nobody wrote down yet.

    `known` are hooks of a module that somebody else looks after.
    """
    kept = [(module, vars(module)[name], set(vars(module)[name])) for module in modules for name in TABLES]

    def away() -> None:
        for module, table, before in kept:
            for key in set(table) - before - known(module):
                table.pop(key, None)

    with undone(away):
        yield


def put_back_leftovers() -> None:
    """Undo, the latest first, what functions have changed that are not running any more."""
    if not undone.notes:
        return
    running = {id(frame) for top in sys._current_frames().values() for frame in _stack(top)}
    for note in reversed(undone.notes.copy()):
        if id(note.holder) not in running:
            note.put_back()


def as_found(verb: Callable[Given, Found]) -> Callable[Given, Found]:
    """A verb that computes with gradients as it needs them, and leaves torch and the models as it found them.

    Inference mode and `no_grad` around it, also such as an interrupted call left on, do not reach into it.
    """

    @wraps(verb)
    def whole(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        put_back_leftovers()
        with _torch_as_found(), torch.inference_mode(False), torch.enable_grad():
            return verb(*args, **kwargs)

    return whole


@contextlib.contextmanager
def _torch_as_found() -> Iterator[None]:
    """The switches of torch that a block turns, and that are stuck where its end is interrupted."""
    gradients, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    modes = len(_get_current_function_mode_stack())
    try:
        yield
    finally:
        put_back_leftovers()
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        while len(_get_current_function_mode_stack()) > modes:
            _pop_mode()


def _holder(frame: FrameType | None) -> FrameType | None:
    """The function that a change is made for: generators stop and go on, the one that uses them runs all the time."""
    while frame is not None and (
        frame.f_code.co_flags & inspect.CO_GENERATOR
        or str(frame.f_globals.get("__name__")).partition(".")[0] in BETWEEN
    ):
        frame = frame.f_back
    return frame


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
