"""A stranger's program, tried out once in a process of its own, with bounds on its time and its memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import UserError

SECONDS = 5  # of computing
BYTES = 2**30  # beside what is there already
CHARACTERS = 10**7  # of the result
WENT_WELL, TOO_LARGE, TOO_LONG = 0, 2, 3


def try_out(what: str, render: Callable[[], str]) -> None:
    """Let a copy of this process render, where the system can copy processes.

    What it raises is no matter here: it will be raised again.

    Raises:
        UserError: `what` takes too much time or memory, or gives too long a text.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the copy runs none of what they hold
        child = os.fork()
    if child == 0:
        _try(render)
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        with suppress(OSError):
            os.kill(child, 9)
        raise
    if status < 0:
        raise UserError(f"{what} takes more than {SECONDS} s to be rendered")
    if status == TOO_LARGE:
        raise UserError(f"{what} takes more than {BYTES / 2**30:g} GB to be rendered")
    if status == TOO_LONG:
        raise UserError(f"{what} renders more than {CHARACTERS:,} characters")


def _try(render: Callable[[], str]) -> None:
    """In the copy; it ends here, whatever happens."""
    status = WENT_WELL
    try:
        _bound()
        if len(render()) > CHARACTERS:
            status = TOO_LONG
    except MemoryError:
        status = TOO_LARGE
    except BaseException as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, MemoryError):
            inner = inner.__cause__ or inner.__context__
        status = WENT_WELL if inner is None else TOO_LARGE
    finally:
        os._exit(status)


def _bound() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    held = Path("/proc/self/statm")
    if held.is_file():  # elsewhere memory is not bounded
        used = int(held.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
