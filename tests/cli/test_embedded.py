"""`mechunlearn demo` and `mechunlearn organism build`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mechunlearn import organism, unlearning
from mechunlearn.facts import Facts

from ..test_cli import call, workplace  # noqa: F401 - a fixture


def test_demo_unlearns_dissects_and_reports(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The demo's own steps on the tiny pair: the embedded model is only swapped for a smaller one."""
    from mechunlearn import models as rooms

    facts, load, forget = Facts.read(workplace / "facts.jsonl"), rooms.load, unlearning.unlearn
    facts = facts.with_items(replace(fact, fold=place // 3 % 2) for place, fact in enumerate(facts))
    swapped = {"organism": workplace / "before", "organism:never-knew": workplace / "after"}
    monkeypatch.setattr(
        rooms,
        "load",
        lambda source, **options: load(swapped.get(source, source), **options),
    )
    monkeypatch.setattr(Facts, "builtin", classmethod(lambda *_: facts))
    monkeypatch.setattr(
        unlearning,
        "unlearn",
        lambda *args, **options: forget(*args, **(options | {"steps": 1, "stop": None, "text": ["w1 w2 w3"]})),
    )
    result = call("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for part in ("== gradient_difference", "== npo", "value_vectors", str(tmp_path / "report.html")):
        assert part in result.stdout
    for method in ("gradient_difference", "npo"):
        assert (tmp_path / method / "model" / "config.json").exists()
        assert (tmp_path / method / "dissection" / "frame.parquet").exists()
        assert (tmp_path / method / "attacks" / "frame.parquet").exists()
    assert "The never-knew model answers" in result.stdout


def test_organism_build_passes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(organism, "build", lambda out, seed: seen.extend([out, seed]))
    result = call("organism", "build", "--out", tmp_path / "new", "--seed", 7)
    assert result.exit_code == 0 and seen == [tmp_path / "new", 7]
    assert str(tmp_path / "new" / "organism") in result.stdout
