"""`mechunlearn attack`: it says what came back and what was left out, and keeps a run folder that a report shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mechunlearn import attacks
from mechunlearn.attacks import ATTACKS, SUITES, Attacks
from mechunlearn.cli import inputs
from mechunlearn.facts import Facts, organism_text
from mechunlearn.runs import read_run

from ..reporting import synthetic
from ..test_cli import assert_one_line, call, workplace  # noqa: F401 - a fixture


def test_help_lists_every_attack_and_suite() -> None:
    shown = call("attack", "--help")
    assert shown.exit_code == 0
    suites, listed = shown.stdout.split("Suites:")[1].split("Examples:")[0].split("Attacks:")
    assert [line.split()[0] for line in suites.splitlines() if line.strip()] == sorted(SUITES)
    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == set(ATTACKS)
    needing = {line.split()[0] for line in listed.splitlines() if "needs --before" in line}
    assert needing == {name for name, one in ATTACKS.items() if one.needs_before}
    assert "mechunlearn attack" in shown.stdout.split("Examples:")[1]


def test_a_table_a_folder_and_a_report(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    command = (
        *("attack", workplace / "after", "--never-knew", workplace / "before", "--facts", workplace / "facts.jsonl"),
        *("--suite", "quantise,noise", "--device", "cpu", "--out", tmp_path / "run"),
    )
    result = call(*command)
    assert result.exit_code == 0, result.output
    found = Attacks.load(tmp_path / "run")
    assert set(found.frame["attack"]) == {"none", "quantise", "noise"}
    assert set(found.about["models"]) == {"after", "never-knew"}
    assert (
        result.stdout.startswith("Facts asked in held-out phrasings.\nattack")
        and "Of the attacks that need no help" in result.stdout
    )
    lines = [line.split()[0] for line in result.stdout.splitlines()[3:] if line.startswith(("quantise ", "noise "))]
    assert len(lines) == len(found.summary())
    assert f"mechunlearn report {tmp_path / 'run'}" in result.stdout
    assert call(*command).stdout == result.stdout
    assert_one_line(call(*command, "--seed", "1"), "other settings", "seed")
    assert call("report", tmp_path / "run").exit_code == 0
    assert "Attacks: run" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_what_a_suite_lacks_is_told(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    cheap = tuple(ATTACKS[name] for name in ("quantise", "steer", "relearn"))
    monkeypatch.setitem(SUITES, "quick", cheap)
    base = ("attack", workplace / "after", "--facts", workplace / "facts.jsonl", "--device", "cpu")
    result = call(*base, "--suite", "quick", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "Not tested: steer, which needs the model before unlearning." in result.stdout
    assert "Mind: Relearn: the forget facts are not parted in folds, so halves of them are relearned" in result.stdout
    assert "no anchor" in result.stdout
    assert set(read_run(tmp_path / "run")["about"]["settings"]["left_out"]) == {"steer"}


def test_options_arrive(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    seen: dict[str, Any] = {}

    def spy(model: object, facts: Facts, **options: Any) -> Attacks:
        seen.update(options, model=model, facts=facts)
        frame = synthetic.attack_frame({("quantise", "int4"): (0.5, 0.1)})
        return Attacks(frame, {"settings": {"left_out": {}}})

    monkeypatch.setattr(attacks, "attack", spy)
    monkeypatch.setattr(inputs, "check_there", lambda _: None)
    text = tmp_path / "text.txt"
    text.write_text("one\n\ntwo\n")
    rest = (
        "--out",
        tmp_path / "out",
        "--seed",
        "3",
        "--batch-size",
        "8",
        "--prompts",
        "own",
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
    )
    result = call("attack", "A", "--before", "B", "--never-knew", "N", "--facts", "organism", *rest)
    assert result.exit_code == 0, result.output
    assert (seen["model"], seen["before"], seen["never_knew"]) == ("A", "B", "N")
    assert (seen["device"], seen["dtype"], seen["prompts"]) == ("cpu", "bfloat16", "own")
    assert (seen["suite"], seen["seed"], seen["batch_size"], seen["run"]) == ("default", 3, 8, tmp_path / "out")
    assert seen["text"] == organism_text("train") and seen["facts"].near
    call("attack", "A", "--facts", "organism", *rest, "--suite", "noise, prompts", "--text", text)
    assert seen["suite"] == ["noise", "prompts"] and seen["text"] == ["one", "two"] and seen["before"] is None
    call("attack", "A", "--facts", workplace / "facts.jsonl", *rest, "--suite", "noise")
    assert seen["text"] is None and seen["suite"] == "noise"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"--suite": "hypnosis"}, ["hypnosis", "quick", "quantise"]),
        ({"--suite": "quantise,hypnosis"}, ["hypnosis"]),
        ({"--suite": " , "}, ["empty list"]),
        ({"--suite": "steer"}, ["steer", "the model before unlearning"]),
        ({"--facts": "near.jsonl"}, ["near.jsonl", '"role"']),
        ({"--facts": "missing.jsonl"}, ["missing.jsonl"]),
        ({"--text": "missing.txt"}, ["missing.txt"]),
        ({"--never-knew": "./other"}, ["never-knew", "ecture"]),
        ({"--before": "./other"}, ["before", "ecture"]),
    ],
)
def test_bad_input(
    workplace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(workplace)
    Path("near.jsonl").write_text('{"prompt": "w1 w2", "answer": "w3", "role": "near"}')
    given = {"--facts": "facts.jsonl", "--suite": "quantise", "--device": "cpu", "--out": str(tmp_path / "o")} | options
    assert_one_line(call("attack", "./after", *(part for pair in given.items() for part in pair)), *parts)
    assert not (tmp_path / "o").exists()


def test_a_wrong_name_is_told_before_any_model_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = sys.modules["mechunlearn.attacks.attack"]
    monkeypatch.setattr(room, "load_to_ask", lambda *_, **__: pytest.fail("a model was opened"))
    command = ("attack", "organism", "--facts", "organism", "--suite", "noise,hypnosis", "--out", tmp_path / "o")
    assert_one_line(call(*command), "hypnosis", "quick", "quantise")
