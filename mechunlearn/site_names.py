"""How a site is written: one name or several joined with +, and behind each, in brackets, some of its places.

    head_output[0,3]                       heads 0 and 3, in every layer
    mlp_coefficients[0-99,120]             ranges have both their ends
    mlp_coefficients[3:17,5:0-99]          LAYER:PLACE, by layer: neuron 17 of layer 3, and 0 to 99 of layer 5
    head_output[2-4:0]                     head 0 of layers 2 to 4
    mlp_coefficients[0-99]+attention_output

What stands behind the colon is never a slice: `[3:17]` is one place of one layer. What is no such name is a regular
expression over the names of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import regex

from .checking import shown
from .errors import UserError

SECONDS = 1.0  # that a regular expression may take for one name
LONGEST = 40  # letters of a range: more digits than any model has places
RANGE = re.compile(
    r"\s*(?:(?P<layer>\d+)(?:\s*-\s*(?P<last_layer>\d+))?\s*:)?\s*(?P<place>\d+)(?:\s*-\s*(?P<last_place>\d+))?\s*"
)


@dataclass(frozen=True)
class Range:
    """Consecutive places in consecutive layers, the last ones included; `layers` None: in every layer."""

    places: tuple[int, int]
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Part:
    """One of the sites that a name joins; `ranges` say which of its places are meant, none of them: all."""

    base: str
    ranges: tuple[Range, ...] = ()

    @property
    def by_layer(self) -> bool:
        """Whether its places are those of layers that it names."""
        return any(found.layers is not None for found in self.ranges)


def split(name: str) -> list[tuple[str, str | None]]:
    """What is joined with +: each part's name, and what stands in brackets behind it; None where nothing does."""
    found: list[tuple[str, str | None]] = []
    for part in re.split(r"\+(?![^\[\]]*\])", name):
        match = re.fullmatch(r"\s*([^\[\]]+)\[([0-9,:\s-]+)\]\s*", part)
        found.append((match[1], match[2]) if match else (part.strip(), None))
    return found


def ranges(name: str, text: str) -> tuple[Range, ...]:
    """The places in brackets behind a part of `name`.

    Raises:
        UserError: one is no place or range of places; only some of them name their layer.
    """
    found = tuple(_range(name, part) for part in text.split(","))
    if len({one.layers is None for one in found}) == 2:
        raise UserError(
            f"site {shown(name)}: some places name their layer and others do not; write it before each, like "
            "[3:17,3:20-29], or before none"
        )
    return found


def _range(name: str, text: str) -> Range:
    match = RANGE.fullmatch(text)
    if match is None:
        told = f"{text.strip()!r} is no place and no range of places"
        raise UserError(f"site {shown(name)}: {told}; write [0,3] or [0-99], and [3:17] for place 17 of layer 3")
    if len(text) > LONGEST:
        raise UserError(f"site {shown(name)}: an index beyond what any model has")
    pairs = []
    for first, last in (match["place"], match["last_place"]), (match["layer"], match["last_layer"]):
        if first is not None:
            pairs.append((int(first), int(last or first)))
            if pairs[-1][1] < pairs[-1][0]:
                raise UserError(f"site {shown(name)}: the range {first}-{last} ends before it begins")
    return Range(*pairs)


def chosen(name: str, part: Part, count: int, layers: Collection[int], n_layers: int) -> dict[int, tuple[int, ...]]:
    """The places that a part means in each layer, in their order, each once.

    Args:
        name: the site as it is written.
        count: how many places the part's site has in a layer.
        layers: those that have the part's site, of the model's `n_layers`.

    Raises:
        UserError: a place or layer that the model, or the site in it, does not have.
    """
    found: dict[int, set[int]] = {}
    for one in part.ranges:
        if one.places[1] >= count:
            raise UserError(
                f"site {shown(name)}: index {one.places[1]} lies outside; {part.base} has 0 to {count - 1} in a layer"
            )
        if one.layers is not None and one.layers[1] >= n_layers:
            raise UserError(
                f"site {shown(name)}: layer {one.layers[1]} lies outside; the model has layers 0 to {n_layers - 1} "
                "(the number before a colon is a layer)"
            )
        here = layers if one.layers is None else range(one.layers[0], one.layers[1] + 1)
        for layer in here:
            if layer not in layers:
                raise UserError(
                    f"site {shown(name)}: layer {layer} has no {part.base}; layers {spans(sorted(layers))} have"
                )
            found.setdefault(layer, set()).update(range(one.places[0], one.places[1] + 1))
    return {layer: tuple(sorted(places)) for layer, places in found.items()}


def matches(pattern: str, text: str, name: str) -> bool:
    """Whether the regular expression is found in the text; some would be looked for until the end of the world.

    Raises:
        UserError: the site `name` is none, or takes too long.
    """
    try:
        return regex.search(pattern, text, timeout=SECONDS) is not None
    except TimeoutError:
        raise UserError(
            f"site {shown(name)}: as a regular expression it takes more than {SECONDS:g} s for one name; write it "
            "without repetitions inside repetitions"
        ) from None
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        reason = str(error) or "too deep"
        raise UserError(
            f"site {shown(name)}: neither a site, a hook name nor a regular expression ({reason})"
        ) from error


def spans(numbers: Iterable[int]) -> str:
    """Ascending whole numbers in words: "0–3, 5"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join("–".join(map(str, span)) for span in found)
