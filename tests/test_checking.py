"""What is given, against what is written: every item of a list, and nothing by chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechunlearn.checking import check_fields, checked, fits, words
from mechunlearn.errors import UserError

MANY = 99


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (["a", "b"], Sequence[str]),
        ("abc", Sequence[str]),
        (None, Sequence[str] | None),
        ((1, 2.0), tuple[float, ...]),
        ((1, 2), tuple[int, int]),
        ({"a": 1}, dict[str, int]),
        ([1, "a", (0, 2)], Sequence[int | str | tuple[int, int]]),
        (np.int64(3), int),
        (np.float32(0.5), float),
        (3, float),
        (True, bool),
        (Path("x"), str | Path),
        ([], list[str]),
        ({"a": [math.pi, True]}, dict[str, Any]),
    ],
)
def test_what_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (["a"] * MANY + [None], Sequence[str]),
        ((0.1,) * MANY + ("x",), tuple[float, ...]),
        (("a",) * MANY + (5,), tuple[str, ...]),
        ((1, True), tuple[float, ...]),
        ((1, 2, 3), tuple[int, int]),
        ({**dict.fromkeys(range(MANY), 1), "x": 1}, dict[int, int]),
        ([1.0] * MANY + [math.nan], list[float]),
        (math.inf, float),
        (True, int),
        (True, float),
        ("1", int),
        (2.5, int),
        (["a", ["b"]], Sequence[str] | None),
        (b"x", str | Path),
    ],
)
def test_what_does_not_fit(value, hint):
    assert not any(fits(value, hint) for _ in range(20))


def test_verbs_and_fields_name_what_was_wrong():
    @checked
    def verb(names: Sequence[str], count: int | None = None) -> None: ...

    with pytest.raises(UserError, match=r"verb: count must be a whole number or None, not 2\.5"):
        verb(["a"], count=2.5)
    with pytest.raises(UserError, match=r"verb: names must be Sequence\[str\], not \['a', None\]"):
        verb(["a", None])
    with pytest.raises(TypeError):
        verb()

    @dataclass
    class Settings:
        rates: tuple[float, ...] = (0.1,)

    made = Settings()
    made.rates = (0.1,) * MANY + ("x",)
    with pytest.raises(UserError, match=r"Settings: rates must be tuple\[float, \.\.\.\], not "):
        check_fields(made)


def test_types_in_words():
    assert words(int | float | None) == "a number or None"
    assert words(str | Path) == "a text or Path"
