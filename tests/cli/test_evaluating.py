"""`mechunlearn evaluate`: it says which prompts it asks, shows one table, and keeps a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechunlearn.evaluation import MEASURES
from mechunlearn.runs import read_frame, read_run

from ..test_cli import assert_one_line, call, workplace  # noqa: F401 - a fixture


def test_help_and_the_list_of_measures() -> None:
    shown = call("evaluate", "--help")
    assert shown.exit_code == 0 and "mechunlearn evaluate" in shown.stdout.split("Example")[1]
    listed = call("measures")
    assert listed.exit_code == 0, listed.output
    for name, measure in MEASURES.items():
        assert name in listed.stdout and measure.direction in listed.stdout


def test_a_table_and_a_folder(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    text = tmp_path / "text.txt"
    text.write_text("w1 w2 w3 w4\n\nw5 w6 w7\n")
    command = (
        *("evaluate", workplace / "after", "--before", workplace / "before", "--facts", workplace / "facts.jsonl"),
        *("--text", text, "--max-new-tokens", "3", "--device", "cpu", "--out", tmp_path / "run"),
    )
    result = call(*command)
    assert result.exit_code == 0, result.output
    head, *rows = result.stdout.splitlines()[2:]
    assert "Asked by their own prompts" in result.stdout
    assert [word for word in head.split() if word in ("forget", "near", "far", "text")] == [
        "forget", "near", "far", "text",
    ]  # fmt: skip
    names = [row.split()[0] for row in rows if row.strip()]
    table = read_frame(tmp_path / "run" / "frame.parquet")
    assert [name for name in names if name in MEASURES] == list(dict.fromkeys(table.measure))
    value = table.set_index(["role", "measure"]).value["far", "answer_probability"]
    assert f"{value:.3f}" in next(row for row in rows if row.startswith("answer_probability"))
    assert set(table.measure) >= {"recall", "rouge_l", "bleu", "text_loss", "text_kl"}
    assert len(read_frame(tmp_path / "run" / "facts.parquet")) == 12
    about = read_run(tmp_path / "run")["about"]
    assert about["before"] and about["facts"]["n"] == 12 and about["texts"] == 2
    assert call(*command).stdout == result.stdout
    assert_one_line(call(*command, "--seed", "1"), "other settings", "seed")


def test_held_out_prompts_are_asked_where_all_facts_have_them(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    facts = tmp_path / "held.jsonl"
    facts.write_text('{"prompt": "w1", "answer": "w2", "held_out": ["w3", "w4"], "fold": 1}\n')
    base = ("evaluate", workplace / "before", "--facts", facts, "--measures", "recall", "--device", "cpu")
    result = call(*base, "--by", "fold")
    assert result.exit_code == 0, result.output
    assert "Asked by 2 held-out prompts" in result.stdout and result.stdout.splitlines()[-1].endswith(" 1")
    assert call(*base, "--prompts", "own").stdout.splitlines()[-1].endswith(" 1")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--measures", "recal"], ["recal", "answer_probability"]),
        (["--measures", "text_kl"], ["text_kl needs `before` and `text`"]),
        (["--measures", " , "], ["empty list"]),
        (["--measures", "choice_accuracy"], ["fact '0' has 0 distractors"]),
        (["--text", "missing.txt"], ["missing.txt"]),
        (["--prompts", "held-out"], ["12 of 12 facts have none"]),
        (["--prompts", "some"], ["own, held-out"]),
        (["--by", "colour"], ["colour", "role"]),
    ],
)
def test_bad_input(workplace: Path, tmp_path: Path, options: list[str], parts: list[str]) -> None:  # noqa: F811
    base = ("evaluate", workplace / "before", "--facts", workplace / "facts.jsonl", "--device", "cpu")
    assert_one_line(call(*base, "--out", tmp_path / "out", *options), *parts)
    assert not (tmp_path / "out").exists()
