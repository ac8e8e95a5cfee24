"""`mechunlearn evaluate`: it says which prompts it asks, shows one table, and keeps a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechunlearn.evaluation import MEASURES, Evaluation

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
    assert result.stdout.splitlines()[1] == "Facts asked in held-out phrasings."
    assert [word for word in head.split() if word in ("forget", "near", "far", "text")] == [
        "forget", "near", "far", "text",
    ]  # fmt: skip
    names = [row.split()[0] for row in rows if row.strip()]
    found = Evaluation.load(tmp_path / "run")
    table = found.summary()
    assert [name for name in names if name in MEASURES] == list(dict.fromkeys(table.measure))
    value = table.set_index(["role", "measure"]).value["far", "answer_probability"]
    assert f"{value:.3f}" in next(row for row in rows if row.startswith("answer_probability"))
    assert set(table.measure) >= {"recall", "rouge_l", "bleu", "text_loss", "text_kl"}
    assert len(found.frame) == 12 and len(found.texts) == 2
    assert found.about["before"] and found.about["facts"]["n"] == 12 and found.about["texts"] == 2
    assert call(*command).stdout == result.stdout
    assert_one_line(call(*command, "--seed", "1"), "other settings", "seed")


def test_facts_are_asked_in_the_phrasings_that_are_named(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    facts = tmp_path / "held.jsonl"
    facts.write_text('{"prompt": "w1", "answer": "w2", "held_out": ["w3", "w4"], "fold": 1}\n')
    base = ("evaluate", workplace / "before", "--facts", facts, "--measures", "recall", "--device", "cpu")
    for options, asked, told in (
        ((), ["0#h0", "0#h1"], "Facts asked in held-out phrasings."),
        (("--prompts", "own"), ["0"], "Facts asked in their own phrasings."),
        (("--prompts", "all"), ["0", "0#h0", "0#h1"], "Facts asked in all phrasings."),
    ):
        folder = tmp_path / f"run{len(asked)}"
        result = call(*base, *options, "--by", "fold", "--out", folder)
        assert result.exit_code == 0, result.output
        table = result.stdout.split("Mind:")[0].rstrip()
        assert told in result.stdout and table.endswith(" 1")
        assert list(Evaluation.load(folder).frame["question"]) == asked


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--measures", "recal"], ["recal", "answer_probability"]),
        (["--measures", "text_kl"], ["text_kl needs `before` and `text`"]),
        (["--measures", " , "], ["empty list"]),
        (["--measures", "choice_accuracy"], ["fact '0' has 0 distractors"]),
        (["--text", "missing.txt"], ["missing.txt"]),
        (["--prompts", "held-out"], ["held-out", "own, held_out, all"]),
        (["--by", "colour"], ["colour", "role"]),
    ],
)
def test_bad_input(workplace: Path, tmp_path: Path, options: list[str], parts: list[str]) -> None:  # noqa: F811
    base = ("evaluate", workplace / "before", "--facts", workplace / "facts.jsonl", "--device", "cpu")
    assert_one_line(call(*base, "--out", tmp_path / "out", *options), *parts)
    assert not (tmp_path / "out").exists()


def test_columns_and_keys_say_how_a_file_is_read(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    base = ("evaluate", workplace / "before", "--measures", "recall", "--device", "cpu")
    mapped, keyed = tmp_path / "mapped.jsonl", tmp_path / "keyed.jsonl"
    mapped.write_text('{"query": "w1", "gt": "w2", "level": "1"}\n')
    result = call(*base, "--facts", mapped, "--columns", "prompt=query,answer=gt")
    assert result.exit_code == 0 and "1 of 1 facts" in result.stdout, result.output
    assert_one_line(call(*base, "--facts", mapped), "no known format has these fields")
    assert_one_line(call(*base, "--facts", mapped, "--columns", "query"), "--columns query", "prompt=query,answer=gt")
    keyed.write_text('{"question": "w1", "choices": ["w2", "w3"], "answer": 1}\n')
    assert_one_line(call(*base, "--facts", keyed, "--keys", "digit"), "keys 'digit'", "number from 1")
