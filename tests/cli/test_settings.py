"""What a settings file may hold, and that anything else is one line that names the file and the setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mechunlearn.cli.inputs import split
from mechunlearn.cli.settings import KEYS, read_settings
from mechunlearn.errors import UserError

from ..test_cli import assert_one_line, call

GOOD = {
    "method": "npo", "set": {"beta": 0.3, "retain": "kl"}, "layered": {"folds": 2, "order": [2, 1]},
    "budget": {"kl": 0.02, "near": 1}, "stop": "chance", "patience": 3, "steps": 7, "learning_rate": 1,
    "optimizer": "sgd", "schedule": "linear", "warmup": 0, "weight_decay": 0, "clip": 1, "batch_size": 8,
    "accumulation": 2, "precision": "bf16", "checkpointing": True, "trainable": ["attention", "norms"],
    "evaluate_every": 5, "prompts": "all",
    "text": "held_out.txt", "retain_text": "train.txt",
}  # fmt: skip


def written(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "npo.json"
    file.write_text(json.dumps(settings))
    return file


def test_what_is_right_comes_through_unchanged(tmp_path: Path) -> None:
    assert list(GOOD) == list(KEYS)
    assert read_settings(written(tmp_path, GOOD)) == GOOD
    others = {"layered": 3, "budget": 0.01, "stop": 0, "learning_rate": 1e-4, "clip": 0.5, "trainable": "norms"}
    assert read_settings(written(tmp_path, others)) == others
    assert read_settings(None) == {}


def test_null_is_no_setting_but_for_clip(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, dict.fromkeys(KEYS))) == {"clip": None}


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("method", 3, "a word"),
        ("set", "beta", "a table of the method's settings"),
        ("layered", "four", "a number of folds"),
        ("layered", True, "a number of folds"),
        ("layered", 2.5, "a number of folds"),
        ("budget", "small", "a number, or a table of numbers"),
        ("budget", {"kl": "small"}, "a number, or a table of numbers"),
        ("budget", {"near": True}, "a number, or a table of numbers"),
        ("stop", "low", "a number, or 'chance'"),
        ("stop", False, "a number, or 'chance'"),
        ("patience", 1.5, "a whole number"),
        ("steps", "many", "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", 10.0, "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", False, "a number"),
        ("optimizer", ["adam"], "a word"),
        ("schedule", 1, "a word"),
        ("warmup", "long", "a whole number"),
        ("weight_decay", {}, "a number"),
        ("clip", "tight", "a number"),
        ("clip", True, "a number"),
        ("batch_size", [8], "a whole number"),
        ("accumulation", "2", "a whole number"),
        ("precision", 16, "a word"),
        ("checkpointing", "yes", "true or false"),
        ("checkpointing", 1, "true or false"),
        ("trainable", 3, "a word, or a list of words"),
        ("trainable", ["norms", 3], "a word, or a list of words"),
        ("evaluate_every", "often", "a whole number"),
        ("text", ["some text"], "a word"),
        ("retain_text", 1, "a word"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    file = written(tmp_path, {"method": "npo", key: value})
    with pytest.raises(UserError) as error:
        read_settings(file)
    message = str(error.value)
    assert message.startswith(f"{file}: '{key}' must be {wanted}")
    assert message.endswith(f", not {value!r}")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("npo.json", '{"method": "npo", "steps": "many"}', ["npo.json: 'steps' must be a whole number, not 'many'"]),
        ("npo.toml", 'method = "npo"\nsteps = "many"', ["npo.toml: 'steps' must be a whole number, not 'many'"]),
        ("npo.toml", 'method = "npo"\nsteps = 2026-01-01', ["npo.toml: 'steps' must be a whole number"]),
        ("npo.json", '{"method": "npo", "stepps": 3}', ["npo.json", "stepps", "steps"]),
        ("npo.json", '["npo"]', ["npo.json", "no table"]),
        ("npo.json", '{"method": "npo", "set": {"beta": "high"}}', ["npo: beta is a number, not 'high'"]),
        ("npo.json", '{"method": "npo", "layered": {"folds": "four"}}', ["layered: folds is a whole number"]),
        ("npo.json", '{"steps": 3}', ["no method", "--method"]),
    ],
)
def test_the_command_line_says_so_in_one_line(tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    out = tmp_path / "out"
    result = call("unlearn", "organism", "--facts", "organism", "--out", out, "--settings", tmp_path / name)
    assert_one_line(result, *parts)
    assert not out.exists()


def test_a_setting_of_the_method_on_the_line_is_checked_too(tmp_path: Path) -> None:
    base = ("unlearn", "organism", "--facts", "organism", "--out", tmp_path / "out", "--method")
    assert_one_line(call(*base, "npo", "--set", "beta=high"), "npo: beta is a number, not 'high'")
    assert_one_line(call(*base, "npo", "--set", "beta=true"), "npo: beta is a number, not True")
    assert_one_line(call(*base, "mlp_breaking", "--set", "blocks=[1]"), "blocks is a list of 2 numbers, not [1]")


def test_commas_within_brackets_belong_to_the_name():
    assert split("--sites", "head_output[0,3], norms ,mlp_output+head_output[1,2]") == [
        "head_output[0,3]", "norms", "mlp_output+head_output[1,2]",
    ]  # fmt: skip
    by_layer = ["mlp_coefficients[3:17,1:0-9]", "head_output[2:0, 3:1]+residual"]
    assert split("--sites", ",".join(by_layer)) == by_layer
    assert split("--sites", "a,b") == ["a", "b"]
