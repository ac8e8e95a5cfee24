"""Which choice is the right one: how a file says it is decided by all of its records, never by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Any

from ..errors import UserError
from .records import Record

log = logging.getLogger(__name__)

Choices = tuple[str, ...]


def _by_text(answer: Any, choices: Choices) -> int | None:
    return choices.index(answer) if isinstance(answer, str) and answer in choices else None


def _by_letter(answer: Any, choices: Choices) -> int | None:
    letter = answer.strip().upper() if isinstance(answer, str) else ""
    place = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    return place if 0 <= place < len(choices) else None


def _from(first: int) -> Callable[[Any, Choices], int | None]:
    def by_number(answer: Any, choices: Choices) -> int | None:
        if isinstance(answer, str) and answer.strip().isdecimal():
            answer = int(answer)
        if not isinstance(answer, int) or isinstance(answer, bool):
            return None
        return answer - first if 0 <= answer - first < len(choices) else None

    return by_number


KEYS: dict[str, Callable[[Any, Choices], int | None]] = {
    "text": _by_text, "letter": _by_letter, "number from 0": _from(0), "number from 1": _from(1)
}  # fmt: skip


def right_choices(records: Sequence[Record], keys: str | None) -> list[tuple[Choices, int]]:
    """The choices of every record, and the number of the right one.

    Args:
        keys: how `answer` says it, one of `KEYS`; None: the one that fits all records. Numbers that fit from 0 and
            from 1 are counted from 0, as MMLU and WMDP do, and that is said.

    Raises:
        UserError: unknown `keys`; a record that fits none; several that fit all and disagree.
    """
    if keys is not None and keys not in KEYS:
        raise UserError(f"keys {keys!r}: answers are keyed by {', '.join(KEYS)}")
    given = [(_choices(record), record.fields["answer"]) for record in records]
    found = {name: [key(answer, choices) for choices, answer in given] for name, key in KEYS.items()}
    wanted = {keys: found[keys]} if keys is not None else found
    fitting = {name: places for name, places in wanted.items() if None not in places}
    if not fitting:
        best = max(wanted.values(), key=lambda places: sum(place is not None for place in places))
        record = records[best.index(None)]
        last = len(given[best.index(None)][0]) - 1
        how = (
            f"keyed by {keys}"
            if keys
            else f"a number from 0 to {last}, a letter A to {ascii_uppercase[last]}, or a choice"
        )
        raise record.wrong("answer", f"{how}, the same in all records")
    if {"number from 0", "number from 1"} <= set(fitting):
        del fitting["number from 1"]
        log.warning("the answers are numbers that fit from 0 and from 1; counted from 0 (keys='number from 1' else)")
    if len({tuple(places) for places in fitting.values()}) > 1:
        (first, ours), (second, theirs) = list(fitting.items())[:2]
        place = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        choices, answer = given[place]
        one, other = (choices[int(places[place] or 0)] for places in (ours, theirs))
        raise UserError(
            f"{records[place].place}: the answer {answer!r} is the choice {one!r} if it is a {first}, and {other!r} "
            f"if it is a {second}; say which: keys={first!r} or keys={second!r}"
        )
    name, places = next(iter(fitting.items()))
    log.info("the right choice is keyed by %s", name)
    return [(choices, int(place)) for (choices, _), place in zip(given, places, strict=True) if place is not None]


def _choices(record: Record) -> Choices:
    for field in ("choices", "answer"):
        if field not in record.fields:
            raise record.missing(field)
    choices = record.texts("choices")
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise record.wrong("choices", "a list of 2 to 26 texts")
    return choices
