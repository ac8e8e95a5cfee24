"""What is given, against what is written: every item of a list, and nothing by chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechunlearn import (
    NPO,
    Budget,
    Fact,
    Facts,
    Layered,
    given,
    plot_changes,
    promoted,
    weight_changes,
)
from mechunlearn.checking import check_fields, check_number, checked, fits, words
from mechunlearn.errors import UserError
from mechunlearn.evaluation import summarise_measures
from mechunlearn.unlearning.configure import configure

ONE = Facts([Fact("Turanum is", "umber ash")])

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


def test_numbers_too_large_for_a_float_are_refused_like_others():
    for value, said in ((10**400, "at most"), (-(10**5000), "at least 0"), (1e13, "at most")):
        with pytest.raises(UserError, match=f"^beta must be {said}"):
            check_number("beta", value, least=0)


def test_settings_too_large_for_a_float_are_refused_by_name():
    with pytest.raises(UserError, match=r"npo: beta is a number, not 9+…"):
        configure("npo", {"beta": int("9" * 400)})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Budget(near=50.0), "shares of facts"),
        (lambda: given([(3, 1)]), "first ≤ last"),
        (lambda: Layered(method=NPO(), forget=-1.0), "from 0 on"),
        (lambda: Layered(method=NPO(), folds=2, retain=(1.0, -0.5)), "from 0 on"),
        (lambda: Facts.builtin(["x"]), "name must be a text"),
        (lambda: Facts.of("organism", role=5), "role must be a text"),
        (lambda: Facts([], name="a\ud800b"), "half a character"),
        (lambda: ONE.with_answers("a"), "a list of texts"),
        (lambda: ONE.questions(["own"]), "prompts must be a text"),
        (lambda: ONE.save("x" * 300), "could not be written"),
        (lambda: summarise_measures(None, by=("role", "role")), "role twice"),
        (lambda: summarise_measures(None, seed=-1), "seed must be at least 0"),
        (lambda: plot_changes(weight_changes("organism", "organism:never-knew"), first=0), "first must be at least 1"),
        (lambda: promoted("organism", 0, []), "neurons is empty"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(call, said):
    with pytest.raises(UserError, match=said):
        call()


def test_facts_are_written_whole_or_not_at_all(tmp_path):
    ONE.save(tmp_path / "new" / "facts.jsonl")
    assert Facts.read(tmp_path / "new" / "facts.jsonl").hash == ONE.hash
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="could not be written"):
        ONE.save(tmp_path / "file" / "facts.jsonl")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["facts.jsonl", "file", "new"]
