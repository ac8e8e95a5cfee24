"""Files that users name, read with bounds: no pipe to wait at, no end that never comes, no nesting without a floor."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from .errors import UserError

MOST_BYTES = 2**31  # of one file; what is larger is no list of facts
LONG = 200  # characters of a name that an error shows


def named(path: str | Path) -> str:
    """A path as an error shows it: whole unless it is longer than any real one."""
    text = str(path)
    return text if len(text) <= LONG else f"{text[: LONG // 2]}…{text[-LONG // 4 :]}"


def there(path: str | Path) -> bool:
    """Whether something has this name; names that nothing can have are no error."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """What a regular file holds.

    Raises:
        UserError: there is none, it is a folder, a pipe or a device, too large, or it cannot be read.
    """
    name, path = named(path), Path(path)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{name} is a folder; name a file")
        if not stat.S_ISREG(found.st_mode):
            raise UserError(
                f"{name} is no regular file but a pipe or a device; write its content to a file and name that"
            )
        if found.st_size > most:
            raise UserError(f"{name} is too large to be read at once ({found.st_size:,} bytes; at most {most:,})")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file {name}") from None
    except NotADirectoryError:
        raise UserError(f"there is no file {name}: a part of that path is a file itself") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def decoded(data: bytes, name: str) -> str:
    """The text, without the mark that some programs put before it.

    Raises:
        UserError: it is not UTF-8, with the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8; save the file as UTF-8 text") from None


def read_text(path: str | Path) -> str:
    """The text of a regular file. Raises as `read_bytes` and `decoded` do."""
    return decoded(read_bytes(path), named(path))


def parse_json(text: str, place: str, first_line: int = 1) -> Any:
    """What the JSON says.

    Raises:
        UserError: it is none, or is nested too deeply, with the place (a file, and a line behind `first_line`).
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{place}, line {line}, column {error.colno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{place}: brackets are nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{place}: not valid JSON ({error})") from None
