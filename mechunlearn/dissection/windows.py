"""Windows: which consecutive layers one patch covers.

A family of windows turns a number of layers into (first, last) pairs, last inclusive. `sliding(5)` is the paper's
(2410.06606): centre c = 0 … L−1, layers c−2 … c+2, clipped at the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..checking import checked, fits, shown
from ..errors import UserError, check_whole

Window = tuple[int, int]


@dataclass(frozen=True)
class Family:
    """A named rule that lists windows."""

    name: str
    rule: Callable[[int], list[Window]]

    def __call__(self, n_layers: int) -> list[Window]:
        return self.rule(n_layers)


Windows = Family | str | Iterable[Family | str | Window] | None
"""What `dissect(windows=)` and `plot(windows=)` take: families, their names, (first, last) pairs, or any of these."""


@checked
def sliding(width: int = 5) -> Family:
    """One window around each layer, clipped at the ends."""
    check_whole("the width of a sliding window", width, 1)
    below, above = (width - 1) // 2, width // 2

    def rule(n_layers: int) -> list[Window]:
        return [(max(0, c - below), min(n_layers - 1, c + above)) for c in range(n_layers)]

    return Family(f"sliding({width})", rule)


def single() -> Family:
    """Each layer alone."""
    return Family("single", lambda n_layers: [(layer, layer) for layer in range(n_layers)])


def up_to() -> Family:
    """Layers 0 … l, for every l."""
    return Family("up_to", lambda n_layers: [(0, layer) for layer in range(n_layers)])


def from_() -> Family:
    """Layers l … L−1, for every l."""
    return Family("from", lambda n_layers: [(layer, n_layers - 1) for layer in range(n_layers)])


def all_layers() -> Family:
    """The one window that covers the model."""
    return Family("all", lambda n_layers: [(0, n_layers - 1)])


def given(windows: Iterable[Window]) -> Family:
    """Exactly these windows.

    Raises:
        UserError: a window that is empty, reversed, or outside the model.
    """
    held = list(windows) if isinstance(windows, Iterable) else [windows]
    if not held or not all(fits(window, Window) for window in held):
        raise UserError(f"windows must be pairs of whole numbers like (0, 4), not {shown(windows)}")
    chosen = [(int(first), int(last)) for first, last in held]
    if odd := [window for window in chosen if not 0 <= window[0] <= window[1]]:
        raise UserError(f"window {odd[0]}: gives the first layer and the last, and first ≤ last, from 0 on")

    def rule(n_layers: int) -> list[Window]:
        for first, last in chosen:
            if not 0 <= first <= last < n_layers:
                raise UserError(f"window ({first}, {last}): the model has layers 0 to {n_layers - 1}, and first ≤ last")
        return chosen

    return Family("given(" + ", ".join(f"{first}-{last}" for first, last in chosen) + ")", rule)


def parse(text: str) -> Family:
    """A family from its name: `sliding:5`, `single`, `up_to`, `from`, `all`, or windows like `0-4` or `3`.

    Raises:
        UserError: no such family.
    """
    name, _, argument = text.strip().replace("(", ":").rstrip(")").partition(":")
    plain = {"single": single, "up_to": up_to, "from": from_, "from_": from_, "all": all_layers}
    try:
        if name == "sliding":
            return sliding(int(argument or 5))
        if name in plain and not argument:
            return plain[name]()
        first, dash, last = name.partition("-")
        return given([(int(first), int(last if dash else first))])
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        known = "sliding:5, single, up_to, from, all, or layers like 3 or 0-4"
        raise UserError(f"windows {text!r}: write {known}") from None


def families(windows: Windows) -> list[Family]:
    """What the user gave as `windows=`, as a list of families; None means sliding(5) and all."""
    if windows is None:
        return [sliding(5), all_layers()]
    if isinstance(windows, Family):
        return [windows]
    if isinstance(windows, str):
        return [parse(part) for part in windows.split(",")]
    if not isinstance(windows, Iterable):
        raise UserError(f"windows {windows!r:.60}: write sliding(5), single() or their names, or (first, last) pairs")
    found, pairs = [], []
    for item in windows:
        if isinstance(item, Family):
            found.append(item)
        elif isinstance(item, str):
            found.append(parse(item))
        else:
            pairs.append(item)
    return [*found, given(pairs)] if pairs else found
