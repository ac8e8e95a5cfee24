"""Runs and models have names that tell them apart, in results, on pages and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mechunlearn as mu
from mechunlearn.cli import app
from mechunlearn.models import clone
from mechunlearn.naming import apart, run_name
from mechunlearn.reporting.content import Content

FEW = mu.Facts.builtin("organism")
FORGET, KEEP = FEW.forget[:4], FEW.near[:4]
QUICK: dict[str, Any] = {"steps": 1, "batch_size": 4, "progress": False}


def test_models_called_alike_are_told_apart_by_their_role() -> None:
    assert apart({"before": "organism", "after": "organism"}) == {
        "before": "organism (before)", "after": "organism (after)",
    }  # fmt: skip
    assert apart({"before": "a", "after": "b", "never-knew": "a"})["after"] == "b"
    before = mu.load("organism")
    about = mu.dissect(before, clone(before), FORGET, sites="value_vectors", windows="all", progress=False).about
    assert (about["before"], about["after"]) == ("organism (before)", "organism (after)")


def test_what_was_unlearned_is_called_as_its_run_else_as_its_method(tmp_path: Path) -> None:
    before = mu.load("organism")
    plain = mu.unlearn(before, "npo", FORGET, KEEP, **QUICK)
    assert (plain.model.cfg.model_name, before.cfg.model_name) == ("npo", "organism")
    kept = mu.unlearn(before, "npo", FORGET, KEEP, run=tmp_path / "gently", **QUICK)
    assert kept.model.cfg.model_name == "gently" == mu.load(tmp_path / "gently" / "model").cfg.model_name
    named = mu.unlearn(before, "npo", FORGET, KEEP, run=tmp_path / "x", name="NPO, β = 0.1", **QUICK)
    again = mu.unlearn(before, "npo", FORGET, KEEP, run=tmp_path / "x", **QUICK)
    assert named.model.cfg.model_name == again.model.cfg.model_name == again.about["name"] == "NPO, β = 0.1"
    assert (plain.frame["loss"] == named.frame["loss"]).sum() == plain.frame["loss"].notna().sum()  # no number changes


def test_every_verb_takes_a_name_that_stands_on_the_page(tmp_path: Path) -> None:
    before = mu.load("organism")
    after = clone(before)
    options = {"progress": False, "name": "one & only"}
    mu.dissect(before, after, FORGET, sites="value_vectors", windows="all", run=tmp_path / "d", **options)
    mu.attack(after, FORGET, suite="quantise", run=tmp_path / "a", **options)
    mu.evaluate(after, FORGET, measures="recall", run=tmp_path / "e", **options)
    found = mu.relearn(after, KEEP, FORGET, settings=mu.Relearn(epochs=1), **options)
    assert found.about["name"] == "one & only"
    content = Content.of(tmp_path)
    sections = [*content.dissections, *content.attacks, *content.evaluations]
    assert [section.name for section in sections] == ["one & only"] * 3
    assert mu.report(tmp_path).read_text().count("one &amp; only") >= 3


def test_on_the_command_line(tmp_path: Path) -> None:
    line = ["evaluate", "organism", "--facts", "organism", "--limit", "2", "--measures", "recall", "--name", "mine"]
    result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "e")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "e" / "run.json").read_text())["about"]["name"] == "mine"


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "half \ud800"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(mu.UserError, match=r"a run's name is a line of text"):
        run_name(name)
