"""One process at a time works on a run folder; the next is told who does and since when.

The lock is the operating system's: it ends with its process, however that ends, so none is ever left behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """This folder is ours inside.

    Raises:
        UserError: it is somebody else's now; it cannot be written into.
    """
    file = folder / NAME
    lock = FileLock(file, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: in use by {_owner(file)}; wait until that one has ended, or give another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder}: cannot be locked ({getattr(error, 'strerror', None) or error})") from error
    try:
        file.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)  # whoever waits for this file sees that it is gone, and makes a new one
        lock.release()


def _owner(file: Path) -> str:
    """Who holds the lock, and since when."""
    try:
        age, owner = time.time() - file.stat().st_mtime, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "another process"
    since = (
        f"{age:.0f} seconds" if age < 120 else f"{age / 60:.0f} minutes" if age < 7200 else f"{age / 3600:.0f} hours"
    )
    return f"process {owner or 'unknown'}, which began {since} ago"
