"""Methods and budgets from plain values: a line of a shell, a settings file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..checking import MOST, checked, shown
from ..errors import UserError
from .catalogue import METHODS
from .loop.budget import Budget
from .method import Method
from .methods.layered import Layered

Made = TypeVar("Made", Method, Layered)

WORDS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a word", "words"),
    NoneType: ("null", "null"),
}  # what a setting can be: one, and many of them


def method_of(source: object) -> Method | Layered:
    """What `unlearn` takes for a method: one with its settings as it is; a name is that of one in `METHODS`.

    Raises:
        UserError: an unknown name; something else than these.
    """
    if isinstance(source, Method | Layered):
        return source
    if isinstance(source, str):
        return configure(source)
    raise UserError(f"method must be one with its settings, such as NPO(), or a name, not {source!r:.60}")


@checked
def configure(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of that name, its defaults changed by `settings`.

    A setting that is itself a method is given by its name, and that method's settings with a dot:
    `{"objective": "npo", "objective.beta": 0.3}`.

    Raises:
        UserError: unknown name or setting, a value of another kind than the setting's.
    """
    if name not in METHODS:
        raise UserError(f"method {name!r}: not one of {', '.join(METHODS)}")
    return changed(METHODS[name], settings, name) if settings else METHODS[name]


def changed(made: Made, settings: Mapping[str, Any], name: str) -> Made:
    """A copy with these fields changed. Raises as `configure` does."""
    known = {field.name: getattr(made, field.name) for field in fields(made)}
    hints = get_type_hints(type(made))
    inner: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        first, _, rest = key.partition(".")
        if first not in known:
            raise UserError(f"{name} has no setting {first!r}; it has {', '.join(known)}")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            plain[first] = _fitting(value, hints[first], f"{name}: {first}")
    for key, values in inner.items():
        base = plain.get(key, known[key])
        if not isinstance(base, Method):
            raise UserError(f"{name}: {key} is no method, so {key}.{next(iter(values))} means nothing")
        plain[key] = changed(base, values, f"{name}: {key}")
    return replace(made, **plain)


def make_budget(values: Mapping[str, Any] | float) -> Budget:
    """A budget from its limits; a number is the KL. Raises UserError as `Budget` does."""
    limits = values if isinstance(values, Mapping) else {"kl": values}
    known = [field.name for field in fields(Budget)]
    for key, value in limits.items():
        if key not in known:
            raise UserError(f"the budget has no limit {key!r}; it has {', '.join(known)}")
        whole = key == "halvings"
        if not (_is_a(value, int) or (_is_a(value, float) and not whole)):
            raise UserError(f"the budget's {key} is {'a whole' if whole else 'a'} number, not {value!r}")
    return Budget(**limits)


def make_layered(inner: Method, values: Mapping[str, Any] | int) -> Layered:
    """Layers around a method; a number is that of the folds. Raises as `configure` does."""
    if isinstance(values, Mapping) and values.get("method", inner) != inner:
        raise UserError("layered has no setting 'method': the method to put layers around is given by itself")
    return changed(Layered(method=inner), values if isinstance(values, Mapping) else {"folds": values}, "layered")


def _fitting(value: Any, hint: Any, name: str) -> Any:
    """The value as the field's annotation has it: a list as a tuple, a method by its name."""
    kinds = _kinds(hint)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Method):
            return _method(value, name)
        if get_origin(kind) is tuple:
            items = _items(value, get_args(kind))
            if items is not None:
                return items
        elif _is_a(value, kind):
            return value
    # Only now: a place in the depth tells 2 from 2.0, and a field that is nothing but a float takes both.
    if float in kinds and _is_a(value, int) and abs(value) < MOST:
        return float(value)
    raise UserError(f"{name} is {_words(hint)}, not {shown(value)}")


def _is_a(value: Any, kind: type) -> bool:
    """As isinstance, but True is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _method(value: Any, name: str) -> Method:
    if isinstance(value, str):
        return configure(value)
    if not isinstance(value, Method):
        raise UserError(f"{name} is a method; give its name, not {value!r}")
    return value


def _items(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A list as a tuple of `inner`; None where it is none."""
    if not isinstance(value, list | tuple):
        return None
    hints = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
    if len(hints) != len(value):
        return None
    try:
        return tuple(_fitting(item, hint, "") for item, hint in zip(value, hints, strict=True))
    except UserError:
        return None


def _words(hint: Any, many: bool = False) -> str:
    """The annotation in words: "a number or 'null'"."""
    kinds = _kinds(hint)
    found = []
    for kind in kinds:
        if get_origin(kind) is tuple:
            first, *others = get_args(kind)
            count = "" if Ellipsis in others else f"{len(others) + 1} "
            found.append(f"a list of {count}{_words(first, many=True)}")
        elif not (kind is int and float in kinds):
            found.append(WORDS[kind][many])
    return " or ".join(found)
