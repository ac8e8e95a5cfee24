"""Evaluations told as they happen: each once, as the frame has it, without a word in the run itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.facts import Facts
from mechunlearn.unlearning import unlearn
from mechunlearn.unlearning.loop import checkpoints
from mechunlearn.unlearning.loop.journal import Journal, rows_of

from .interrupted import go
from .test_resume import interrupted, logged, same


@pytest.mark.parametrize("case", ["npo", "budget", "layered"])
def test_every_row_is_told_as_it_happens_and_nothing_else_changes(case, knowing, facts, tmp_path):
    told: list[dict[str, Any]] = []
    lines: list[int] = []

    def listen(row: dict[str, Any]) -> bool:
        told.append(dict(row))
        lines.append(len((tmp_path / "log.jsonl").read_text().splitlines()))
        row.clear()  # it is the listener's own
        torch.manual_seed(len(told))
        torch.rand(3)
        return True

    result = go(case, knowing, facts, tmp_path, on_evaluation=listen)
    same(result, go(case, knowing, facts, None))
    assert told == rows_of(result.frame)
    assert lines == list(range(1, len(told) + 1))
    pd.testing.assert_frame_equal(logged(tmp_path), result.frame)
    assert "loss" not in told[0] and told[1]["loss"] == result.frame["loss"][1]
    assert isinstance(told[0]["inside"], bool) and isinstance(told[0]["step"], int)


def test_without_a_folder_a_function_is_told_all_the_same(knowing, facts):
    steps: list[int] = []
    go("npo", knowing, facts, None, on_evaluation=lambda row: steps.append(row["step"]))
    assert steps == [0, 2, 4, 6, 8]


def test_a_run_that_goes_on_tells_what_is_new(knowing, facts, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHARE", 1.0)  # a state is kept at every evaluation
    steps: list[int] = []

    def listen(row: dict[str, Any]) -> None:
        steps.append(row["step"])

    interrupted(tmp_path, knowing, facts, monkeypatch, after=5, on_evaluation=listen)
    assert steps == [0, 2, 4] == logged(tmp_path)["step"].tolist()
    result = go("npo", knowing, facts, tmp_path, on_evaluation=listen)
    assert steps == [0, 2, 4, 6, 8]
    pd.testing.assert_frame_equal(logged(tmp_path), result.frame)
    go("npo", knowing, facts, tmp_path, on_evaluation=listen)
    assert len(steps) == 5  # a finished run is opened


@pytest.mark.parametrize("raised", [ZeroDivisionError, RuntimeError("out of memory"), KeyboardInterrupt, UserError])
def test_what_it_raises_ends_the_run_which_can_be_gone_on_with(raised, knowing, facts, tmp_path):
    def refuse(row: dict[str, Any]) -> None:
        if row["step"] == 4:
            raise raised

    kind = raised if isinstance(raised, type) else type(raised)
    with pytest.raises(kind):
        go("npo", knowing, facts, tmp_path, on_evaluation=refuse)
    assert (tmp_path / "run.json").exists() and not (tmp_path / "frame.parquet").exists()
    steps: list[int] = []
    result = go("npo", knowing, facts, tmp_path, on_evaluation=lambda row: steps.append(row["step"]))
    assert steps[-3:] == [4, 6, 8]  # the evaluation that it refused is told again
    same(result, go("npo", knowing, facts, None))
    pd.testing.assert_frame_equal(logged(tmp_path), result.frame)


def test_the_very_first_row_may_be_refused(knowing, facts, tmp_path):
    with pytest.raises(ZeroDivisionError):
        go("npo", knowing, facts, tmp_path, on_evaluation=lambda row: row["step"] / 0)
    same(go("npo", knowing, facts, tmp_path), go("npo", knowing, facts, None))


def test_what_cannot_be_called_is_named(knowing, facts: Facts):
    wrong: Any = "print"
    with pytest.raises(UserError, match="on_evaluation must be a function or None, not 'print'"):
        unlearn(knowing, "npo", facts.forget, facts.retain, on_evaluation=wrong)


ROWS: list[dict[str, Any]] = [{"step": 0, "x": 0.1}, {"step": 1, "x": 0.2, "loss": 1 / 3}]


@pytest.mark.parametrize(
    "left",
    [b"", b'{"stage": 1, "st', b'{"stage": 1, "step": 0, "x": 0.1}\n{"stage": 1, "st', b"mine\n", None],
    ids=["empty", "half the first", "half the second", "something else", "none"],
)
def test_half_lines_and_lines_too_many_are_mended(left: bytes | None, tmp_path: Path):
    path = tmp_path / "log.jsonl"
    if left is not None:
        path.write_bytes(left)
    journal = Journal(path)
    journal.begin(ROWS[:1])
    journal.tell(ROWS[1])
    assert logged(tmp_path)["step"].tolist() == [0, 1]
    assert logged(tmp_path)["loss"][1] == 1 / 3
    number = path.stat().st_ino
    journal.begin(ROWS[:1])
    assert logged(tmp_path)["step"].tolist() == [0]
    assert path.stat().st_ino == number  # cut where it lies: `tail -f` goes on


def test_stages_count_on_from_those_before(tmp_path: Path):
    told: list[dict[str, Any]] = []
    earlier = [{"stage": 1, "step": 0, "tokens": 0}, {"stage": 1, "step": 4, "tokens": 50}]
    journal = Journal(tmp_path / "log.jsonl", told.append, 2, {"step": 4, "tokens": 50}, earlier)
    journal.begin()
    journal.tell({"step": 2, "tokens": 30})
    assert told == [{"stage": 2, "step": 6, "tokens": 80}]
    assert logged(tmp_path)["step"].tolist() == [0, 4, 6]


def test_a_log_that_cannot_be_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no regular file"):
        Journal(tmp_path / "pipe").begin()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: could not be written"):
        Journal(tmp_path / "folder").tell(ROWS[0])
