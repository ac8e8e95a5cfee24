"""What is given is checked against what is written: every argument of a verb, every field of a method, by its type."""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable

from .errors import UserError

Given = ParamSpec("Given")
Found = TypeVar("Found")
TOWER = BeartypeConf(is_pep484_tower=True)  # a whole number is a number
OPENED = frozenset({  # what is opened by `load`, `Facts.of` and `method_of`, who say better what they take
    "model", "source", "before", "after", "never_knew", "facts", "forget", "retain", "train", "test", "method",
})  # fmt: skip
WORDS: dict[Any, str] = {
    bool: "True or False", int: "a whole number", float: "a number", str: "a text", NoneType: "None",
}  # fmt: skip
MOST = 10**300  # beyond any number that is computed with
SHORT = 60  # characters of a value that an error shows


def checked(verb: Callable[Given, Found]) -> Callable[Given, Found]:
    """A verb that refuses arguments of another type than it says, before it does anything.

    Raises:
        UserError: with the name of the argument, what it must be, and what it is.
    """
    signature = inspect.signature(verb)

    @wraps(verb)
    def whole(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            hint = _hints(verb).get(name)
            if hint is not None and not (name in OPENED and str in get_args(hint)) and not fits(value, hint):
                raise UserError(f"{verb.__qualname__}: {name} must be {words(hint)}, not {shown(value)}")
        return verb(*args, **kwargs)

    return whole


def check_fields(made: Any) -> None:
    """Raises UserError: a field of this dataclass is of another type than it says, or a number that is none."""
    name = getattr(made, "name", None)
    name = name if isinstance(name, str) else type(made).__name__
    for field in fields(made):
        value, hint = getattr(made, field.name), _hints(type(made))[field.name]
        if not fits(value, hint):
            raise UserError(f"{name}: {field.name} must be {words(hint)}, not {shown(value)}")


def check_number(
    name: str, value: Any, *, least: int | float = -math.inf, above: int | float = -math.inf, most: int | float = 1e12
) -> None:
    """Raises UserError: no number, or one that lies outside these bounds."""
    whole = isinstance(value, numbers.Integral)
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not (whole or math.isfinite(value)):
        raise UserError(f"{name} must be a number, not {shown(value)}")
    value = float(max(-MOST, min(MOST, int(value)))) if whole else float(value)  # some have thousands of digits
    if value <= above:
        raise UserError(f"{name} must be above {above:g}, not {value:g}")
    if value < least:
        raise UserError(f"{name} must be at least {least:g}, not {value:g}")
    if value > most:
        raise UserError(f"{name} must be at most {most:g}, not {value:g}")


def fits(value: Any, hint: Any) -> bool:
    """Whether the value, with every item in it, is of this type; True is no number, nor is one that is not finite."""
    if hint is Any:
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return any(fits(value, kind) for kind in get_args(hint))
    if isinstance(value, bool) and hint not in (bool, object, Any):
        return False
    if isinstance(value, tuple | list | dict) and not _items_fit(value, hint):  # beartype looks at one of them
        return False
    plain: Any = value.item() if isinstance(value, np.generic) else value
    return bool(is_bearable(plain, hint, conf=TOWER))


def _items_fit(held: tuple[Any, ...] | list[Any] | dict[Any, Any], hint: Any) -> bool:
    """Whether all items are of the types that a list, a tuple or a table of this type holds, where it says so."""
    inner = get_args(hint)
    if not inner:
        return True
    if isinstance(held, dict):
        return all(fits(part, kind) for pair in held.items() for part, kind in zip(pair, inner, strict=False))
    if get_origin(hint) is tuple and Ellipsis not in inner:
        return len(held) == len(inner) and all(map(fits, held, inner))
    return all(fits(part, inner[0]) for part in held)


def words(hint: Any) -> str:
    """A type in words: "a number or None"; others as they are written, without the modules that they stand in."""
    kinds = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    return " or ".join(dict.fromkeys(_word(kind) for kind in kinds if not (kind is int and float in kinds)))


def _word(kind: Any) -> str:
    if kind in WORDS:
        return WORDS[kind]
    if get_origin(kind) is Callable:
        return "a function"
    text = str(kind) if get_args(kind) else getattr(kind, "__name__", str(kind))
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def shown(value: object) -> str:
    """A value, cut to what a line can hold."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"


@cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of)
