"""A file that is no model says which kind it is and what to give, in one line, from Python and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import mechunlearn as mu
from mechunlearn.cli import app

FILES = {
    "after.gguf": r"weights in GGUF are rounded",
    "model.safetensors": r"a file of weights alone; give its folder, with config.json",
    "pytorch_model.bin": r"pickled weights can run code",
    "after.PT": r"pickled weights can run code",
    "facts.jsonl": r"a file, where a model is a folder",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_place_of_a_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(mu.UserError, match=FILES[name]):
        mu.load(tmp_path / name)
    line = ["dissect", "organism", str(tmp_path / name), "--facts", "organism", "--out", str(tmp_path / "d")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and name in result.stderr
