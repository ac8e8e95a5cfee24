"""Methods and budgets from plain values: a line of a shell, a settings file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from ..errors import UserError
from .budget import Budget
from .catalogue import METHODS
from .method import Method
from .methods.layered import Layered

Made = TypeVar("Made", Method, Layered)


def configure(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of that name, its defaults changed by `settings`.

    A setting that is itself a method is given by its name, and that method's settings with a dot:
    `{"objective": "npo", "objective.beta": 0.3}`.

    Raises:
        UserError: unknown name or setting, a value of another kind than the default's.
    """
    if name not in METHODS:
        raise UserError(f"method {name!r}: not one of {', '.join(METHODS)}")
    return changed(METHODS[name], settings or {}, name)


def changed(made: Made, settings: Mapping[str, Any], name: str) -> Made:
    """A copy with these fields changed. Raises as `configure` does."""
    known = {field.name: getattr(made, field.name) for field in fields(made)}
    kinds = {field.name: str(field.type) for field in fields(made)}
    inner: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        first, _, rest = key.partition(".")
        if first not in known:
            raise UserError(f"{name} has no setting {first!r}; it has {', '.join(known)}")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            plain[first] = _fitting(value, known[first], kinds[first], f"{name}: {first}")
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
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"the budget's {key} is a number, not {value!r}")
    return Budget(**limits)


def make_layered(inner: Method, values: Mapping[str, Any] | int) -> Layered:
    """Layers around a method; a number is that of the folds. Raises as `configure` does."""
    return changed(Layered(method=inner), values if isinstance(values, Mapping) else {"folds": values}, "layered")


def _fitting(value: Any, default: Any, kind: str, name: str) -> Any:
    """The value as the kind of thing that the default is."""
    if isinstance(default, Method):
        if isinstance(value, Method):
            return value
        if isinstance(value, str):
            return configure(value)
        raise UserError(f"{name} is a method; give its name, not {value!r}")
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            raise UserError(f"{name} is {default!r} by default; {value!r} is of another kind")
        return value
    if isinstance(default, int | float) and isinstance(value, str) and value != "chance":
        raise UserError(f"{name} is a number, not {value!r}")
    if isinstance(default, str) and not isinstance(value, str):
        raise UserError(f"{name} is a word, not {value!r}")
    # A field that is nothing but a float takes whole numbers as such; a place in the depth tells 2 from 2.0.
    return float(value) if kind == "float" and isinstance(value, int) else value
