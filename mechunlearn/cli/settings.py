"""Settings from a file and from a line of a shell."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..checking import shown
from ..errors import UserError
from ..reading import read_text


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _word(value: Any) -> bool:
    return isinstance(value, str)


WORD, WHOLE, NUMBER = ("a word", _word), ("a whole number", _whole), ("a number", _number)
KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "method": WORD,
    "set": ("a table of the method's settings by name, like {beta = 0.3}", lambda value: isinstance(value, dict)),
    "layered": (
        "a number of folds, or a table like {folds = 4}",
        lambda value: _whole(value) or isinstance(value, dict),
    ),
    "budget": (
        "a number, or a table of numbers like {kl = 0.01}",
        lambda value: _number(value) or (isinstance(value, dict) and all(map(_number, value.values()))),
    ),
    "stop": ("a number, or 'chance'", lambda value: _number(value) or value == "chance"),
    "patience": WHOLE,
    "steps": WHOLE,
    "learning_rate": NUMBER,
    "optimizer": WORD,
    "schedule": WORD,
    "warmup": WHOLE,
    "weight_decay": NUMBER,
    "clip": NUMBER,
    "batch_size": WHOLE,
    "accumulation": WHOLE,
    "precision": WORD,
    "checkpointing": ("true or false", lambda value: isinstance(value, bool)),
    "trainable": (
        "a word, or a list of words",
        lambda value: _word(value) or (isinstance(value, list) and all(map(_word, value))),
    ),
    "evaluate_every": WHOLE,
    "prompts": WORD,
    "text": WORD,
    "retain_text": WORD,
}
"""What a settings file may hold: what is wanted there, in words, and whether a value is that."""


def read_settings(file: Path | None) -> dict[str, Any]:
    """A settings file, JSON or TOML by its suffix.

    Raises:
        UserError: it cannot be read, or holds a key that means nothing or a value of the wrong kind.
    """
    if file is None:
        return {}
    source = read_text(file)
    try:
        found = tomllib.loads(source) if file.suffix == ".toml" else json.loads(source)
    except RecursionError:
        raise UserError(f"{file}: brackets are nested too deeply to be read") from None
    except ValueError as error:  # both libraries' errors are ValueErrors
        raise UserError(f"{file}: not {'TOML' if file.suffix == '.toml' else 'JSON'}: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds no table of settings")
    for key, value in found.items():
        if key not in KEYS:
            raise UserError(f"{file}: unknown setting {key!r}; known are {', '.join(KEYS)}")
        wanted, suits = KEYS[key]
        if value is not None and not suits(value):
            raise UserError(f"{file}: '{key}' must be {wanted}, not {value!r:.60}")
    # In JSON null is no setting at all, but for `clip`, where it means that nothing is clipped.
    return {key: value for key, value in found.items() if value is not None or key == "clip"}


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
            raise UserError(f"{line!r}: write a setting as name=value (several of a list: kl=0.01,near=0.9)")
        found[name.strip()] = _value(name.strip(), value.strip())
    return found


def limits(line: str | None, alone: str) -> dict[str, Any] | None:
    """`"kl=0.01,near=0.9"` by name; a bare number is the one called `alone`."""
    if line is None:
        return None
    return {alone: _value(alone, line)} if "=" not in line else assignments(line.split(","))


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{name}={shown(text)}: brackets are nested too deeply to be read") from None
    except ValueError:
        return text
