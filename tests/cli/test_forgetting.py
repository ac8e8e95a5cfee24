"""`mechunlearn unlearn`: what stands on the line and in a settings file arrives; what is wrong is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mechunlearn import unlearning
from mechunlearn.facts import Facts

from ..test_cli import assert_one_line, call, workplace  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"--method": "hypnosis"}, ["hypnosis", "npo"]),
        ({"--facts": "plain.jsonl"}, ["plain.jsonl", '"role"']),
        ({"--text": "missing.txt"}, ["missing.txt"]),
        ({"--set": "betta=1"}, ["npo has no setting 'betta'", "beta"]),
        ({"--set": "beta"}, ["name=value"]),
        ({"--set": "beta=much"}, ["npo: beta is a number", "'much'"]),
        ({"--set": "retain=hope"}, ["hope", "cross_entropy"]),
        ({"--layered": "five"}, ["layered", "five"]),
        ({"--layered": "9"}, ["4 facts", "9 folds"]),
        ({"--budget": "kl=0.01,nearly=1"}, ["nearly", "near"]),
        ({"--budget": "small"}, ["budget", "small"]),
        ({"--budget": "0.01"}, ["text KL", "`text`"]),
        ({"--trainable": "brain"}, ["brain"]),
        ({"--trainable": "mlp_output"}, ["mlp_output", "whole parameters"]),
        ({"--settings": "missing.toml"}, ["missing.toml"]),
        ({"--settings": "bad.jsonl"}, ["bad.jsonl", "JSON"]),
        ({"--method": "cir", "--learning-rate": "0.1"}, ["cir", "learning_rate"]),
        ({"--steps": "0"}, ["--steps"]),
        ({"--learning-rate": "-1"}, ["learning_rate"]),
        ({"--stop": "2"}, ["stop"]),
    ],
)
def test_bad_input_to_unlearn(
    workplace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(workplace)
    given = {"--method": "npo", "--facts": "facts.jsonl", "--out": str(tmp_path / "out")} | options
    assert_one_line(call("unlearn", "./before", *(part for pair in given.items() for part in pair)), *parts)
    assert not (tmp_path / "out").exists()


def test_settings_come_from_line_and_file_and_the_line_goes_before(
    workplace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    class StopError(Exception):
        pass

    def spy(model: object, method: object, forget: Facts, retain: Facts, **options: Any) -> None:
        seen.update(options, method=method)
        raise StopError

    monkeypatch.setattr(unlearning, "unlearn", spy)
    toml = (
        'method = "npo"\nsteps = 7\nset = {beta = 0.3, retain = "kl"}\nbudget = {kl = 0.02, near = 0.5}\nlayered = 2\n'
    )
    (tmp_path / "s.toml").write_text(toml)
    (tmp_path / "s.json").write_text(
        '{"method": "cir", "set": {"objective": "npo", "objective.beta": 0.7}, "stop": "chance"}'
    )
    base = ("unlearn", workplace / "before", "--facts", workplace / "facts.jsonl", "--out", tmp_path / "o")
    call(*base, "--settings", tmp_path / "s.toml", "--set", "beta=1", "--steps", "9", "--trainable", "attention,norms")
    npo = unlearning.NPO(beta=1.0, retain="kl")
    assert seen["method"] == unlearning.Layered(method=npo, folds=2)
    assert seen["budget"] == unlearning.Budget(kl=0.02, near=0.5)
    assert (seen["steps"], seen["trainable"], seen["text"]) == (9, ["attention", "norms"], None)
    assert "learning_rate" not in seen
    call(
        *base, "--settings", tmp_path / "s.json", "--layered", "folds=3,decay=0.5", "--budget", "0.01", "--stop", "0.2"
    )
    cir = unlearning.CIR(objective=unlearning.NPO(beta=0.7))
    assert seen["method"] == unlearning.Layered(method=cir, folds=3, decay=0.5)
    assert seen["budget"] == unlearning.Budget(kl=0.01) and seen["stop"] == 0.2
