"""Positions on the command line: by meaning, by number, and numbers that begin with a minus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mechunlearn import dissection
from mechunlearn.cli import inputs

from ..test_cli import assert_one_line, call, workplace  # noqa: F401


@pytest.mark.parametrize(
    ("line", "arrives"),
    [
        (["--positions", "-1"], [-1]),
        (["--positions", "-2,-1"], [-2, -1]),
        (["--positions=-1"], [-1]),
        (["--positions=-2,-1"], [-2, -1]),
        (["--positions", "0, -1"], [0, -1]),
        (["--positions", "subject_last"], "subject_last"),
        (["--positions", " answer_first "], "answer_first"),
    ],
)
def test_positions_arrive(
    workplace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: list[str],
    arrives: object,
) -> None:
    seen: dict[str, Any] = {}

    def spy(*_: object, **options: Any) -> None:
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(dissection, "dissect", spy)
    monkeypatch.setattr(inputs, "check_there", lambda _: None)
    call("dissect", "B", "A", "--facts", workplace / "facts.jsonl", "--out", tmp_path / "o", *line)
    assert seen["positions"] == arrives


def test_a_subject_is_patched_and_who_has_none_is_counted(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    facts = tmp_path / "facts.jsonl"
    rows = [{"prompt": f"w{i} w{i + 1} w{i + 2}", "answer": f"w{i + 7}", "subject": f"w{i + i % 4}"} for i in range(8)]
    facts.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    given = ("dissect", workplace / "before", workplace / "after", "--facts", facts, "--sites", "residual")
    result = call(*given, "--out", out, "--positions", "subject")
    assert result.exit_code == 0, result.output
    assert "Mind: Patched at every token of the fact's subject" in result.output
    assert "2 of 8 questions have none of them and are left out" in result.output
    assert set(pd.read_parquet(out / "frame.parquet")["fact"]) == {"0", "1", "2", "4", "5", "6"}
    refused = call(*given, "--out", tmp_path / "o", "--positions", "subjects")
    assert_one_line(refused, "positions 'subjects'", "Did you mean subject?")


def test_sites_tells_how_places_are_written_and_dissect_takes_them(workplace: Path, tmp_path: Path) -> None:  # noqa: F811
    listed = call("sites", workplace / "before")
    assert listed.exit_code == 0, listed.output
    assert "SITE[3:17,5:0-99]" in listed.output and "mlp_coefficients[0-99]+attention_output" in listed.output
    sites = ["mlp_coefficients[3:17,1:0-9]", "head_output[2:0]+mlp_output", "value_vectors[1:5]"]
    given = ("dissect", workplace / "before", workplace / "after", "--facts", workplace / "plain.jsonl")
    result = call(*given, "--sites", ",".join(sites), "--out", tmp_path / "out", "--windows", "single")
    assert result.exit_code == 0, result.output
    frame = pd.read_parquet(tmp_path / "out" / "frame.parquet")
    layers = {str(site): set(rows["first_layer"]) for site, rows in frame.groupby("site", observed=True)}
    assert layers == {sites[0]: {1, 3}, sites[1]: {0, 1, 2, 3}, sites[2]: {1}}
    refused = call(*given, "--sites", "head_output[9:0]", "--out", tmp_path / "o")
    assert_one_line(refused, "head_output[9:0]", "layer 9 lies outside; the model has layers 0 to 3")
