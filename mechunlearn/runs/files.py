"""Files that are there whole or not at all, and folders likewise."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pyarrow as pa

from ..errors import UserError
from ..frames import check_frame
from ..reading import named, there

UNFINISHED = ".unfinished-"  # how the names of what is being written begin


@contextmanager
def renamed_when_whole(path: Path) -> Iterator[Path]:
    """A free name beside `path`, for a file or a folder that gets its own name once the block is done.

    Raises:
        UserError: it cannot be written (no space, no permission); nothing is left behind.
    """
    unfinished = path.parent / f"{UNFINISHED}{secrets.token_hex(6)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        _flush(unfinished)
        unfinished.replace(path)
        _flush(path.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        error_text = getattr(error, "strerror", None) or error
        raise UserError(f"{named(path)}: could not be written: {error_text}") from error
    finally:
        discard(unfinished)


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file so that it is there whole or not at all.

    Raises:
        UserError: as `renamed_when_whole`.
    """
    path = Path(path)
    if there(path) and not path.is_file():
        raise UserError(f"{named(path)}: is no regular file, and is not written over; give another name")
    with renamed_when_whole(path) as unfinished:
        unfinished.write_bytes(content)
    return path


def write_frame(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write a frame as Parquet, whole or not at all."""
    return write_atomically(path, frame_bytes(frame))


def frame_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet.

    Raises:
        UserError: a text in it cannot be written.
    """
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except UnicodeEncodeError as error:
        raise UserError(
            f"a text that is to be kept holds half a character ({error.object[error.start : error.end]!r}): "
            "write it as a whole one"
        ) from error
    return buffer.getvalue()


def read_frame(path: str | Path, needed: Mapping[str, Any] = MappingProxyType({})) -> pd.DataFrame:
    """Read a frame.

    Raises:
        UserError: no such file, not a Parquet file, or one without the columns that are `needed` (as `check_frame`).
    """
    if there(path) and not Path(path).is_file():  # nobody waits at a pipe
        raise UserError(f"{path}: is no regular file where a frame should be; was the run folder changed?")
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the run is not finished, or this is not a run folder") from error
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from error
    return check_frame(path, frame, needed)


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Write JSON for people to read, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    return write_atomically(path, text.encode("utf-8", "backslashreplace"))


def digest(held: Path | bytes) -> str:
    """A short hash of what a file holds."""
    if isinstance(held, bytes):
        return hashlib.blake2b(held, digest_size=16).hexdigest()
    if held.exists() and not held.is_file():  # nobody waits at a pipe
        raise OSError(None, "no regular file")
    with held.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """To the disk, with all that lies below."""
    if path.is_dir():
        for below in path.iterdir() if path.name.startswith(UNFINISHED) else ():
            _flush(below)
        if os.name == "nt":  # folders cannot be opened there
            return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
