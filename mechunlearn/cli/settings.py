"""Settings from a file and from a line of a shell."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError

KEYS = (
    "method", "set", "layered", "budget", "stop", "patience", "steps", "learning_rate", "optimizer", "schedule",
    "warmup", "weight_decay", "clip", "batch", "accumulation", "precision", "checkpointing", "trainable",
    "evaluate_every", "text", "retain_text",
)  # fmt: skip


def read_settings(file: Path | None) -> dict[str, Any]:
    """A settings file, JSON or TOML by its suffix.

    Raises:
        UserError: it cannot be read, or holds a key that means nothing.
    """
    if file is None:
        return {}
    try:
        source = file.read_text(encoding="utf-8")
        found = tomllib.loads(source) if file.suffix == ".toml" else json.loads(source)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    except ValueError as error:  # both libraries' errors are ValueErrors
        raise UserError(f"{file}: not {'TOML' if file.suffix == '.toml' else 'JSON'}: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds no table of settings")
    for key in found:
        if key not in KEYS:
            raise UserError(f"{file}: unknown setting {key!r}; known are {', '.join(KEYS)}")
    if not isinstance(found.get("set", {}), dict):
        raise UserError(f"{file}: 'set' holds settings of the method by name, like {{beta = 0.3}}")
    return found


def merged(file: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """What the line gives goes before the file; of the method's settings, one by one."""
    given = {name: value for name, value in line.items() if value not in (None, {})}
    both = file | given
    if "set" in file and "set" in given:
        both["set"] = file["set"] | given["set"]
    return both


def assignments(lines: Sequence[str] | None) -> dict[str, Any]:
    """`["beta=0.3", "retain=kl"]` by name; values are read as JSON where they are some, else as words.

    Raises:
        UserError: a line without "=".
    """
    found = {}
    for line in lines or ():
        name, equals, value = line.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise UserError(f"{line!r}: write a setting as name=value")
        found[name.strip()] = _value(value.strip())
    return found


def limits(line: str | None, alone: str) -> dict[str, Any] | None:
    """`"kl=0.01,near=0.9"` by name; a bare number is the one called `alone`."""
    if line is None:
        return None
    return {alone: _value(line)} if "=" not in line else assignments(line.split(","))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
