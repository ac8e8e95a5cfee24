"""Public benchmarks, with a task of our own whose answers are worked out by hand."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

import mechunlearn as mu
from mechunlearn.errors import UserError
from mechunlearn.evaluation import benchmark
from mechunlearn.evaluation.harness import _own_randomness

from ..facts.tokenizers import byte_level_bos
from .models import bridge, plain

PLACES = ("Rome", "an old house", "Paris or so", "the east", "a boat")
QUESTIONS = [
    {"text": f"Person {n} lives in", "options": [PLACES[(n + step) % 5] for step in (0, 1, 3)], "gold": n % 3}
    for n in range(11)
]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks and a group of them; what `datasets` makes of the data stays here too."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(_task_manager(), include_defaults=False))
    found = tmp_path / "tasks"
    found.mkdir()
    (found / "data.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    (found / "few.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS[:4])))
    (found / "homes.yaml").write_text(TASK.format(name="homes", data=found / "data.jsonl"))
    (found / "few.yaml").write_text(TASK.format(name="few_homes", data=found / "few.jsonl"))
    (found / "lost.yaml").write_text(TASK.format(name="lost_homes", data=found / "missing.jsonl"))
    (found / "both.yaml").write_text(
        "group: both\ntask: [homes, few_homes]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    return found


def _task_manager() -> type:
    from lm_eval.tasks import TaskManager

    return TaskManager


def right(count: int = len(QUESTIONS), by_length: bool = False) -> list[bool]:
    """Whether the most probable option, in one forward pass each, is the right one; or the most probable by letter."""
    model, tokenizer, found = plain(), byte_level_bos(), []
    for question in QUESTIONS[:count]:
        scores = []
        for option in question["options"]:
            begin = len(tokenizer(question["text"])["input_ids"])
            ids = torch.tensor([tokenizer(f"{question['text']} {option}")["input_ids"]])
            with torch.no_grad():
                logprobs = model(ids).logits[0].double().log_softmax(-1)
            total = sum(logprobs[place - 1, ids[0, place]].item() for place in range(begin, ids.shape[1]))
            scores.append(total / len(option) if by_length else total)
        found.append(max(range(3), key=scores.__getitem__) == question["gold"])
    return found


def stderr(hits: list[bool]) -> float:
    share = sum(hits) / len(hits)
    return math.sqrt(share * (1 - share) / (len(hits) - 1))


def rows(frame: pd.DataFrame) -> dict[tuple[str, str], Any]:
    assert list(frame) == ["task", "metric", "value", "stderr", "n"]
    return {(row["task"], row["metric"]): (row["value"], row["stderr"], row["n"]) for row in frame.to_dict("records")}


def test_is_what_forward_passes_give_for_a_bridge_a_folder_and_a_module(folder: Path, tmp_path: Path) -> None:
    before = bridge().train()
    found = rows(benchmark(before, "homes", include_path=folder))
    plainly, by_length = right(), right(by_length=True)
    assert 0 < sum(plainly) < 11 and plainly != by_length
    assert set(found) == {("homes", "acc"), ("homes", "acc_norm")}
    for metric, hits in (("acc", plainly), ("acc_norm", by_length)):
        assert found["homes", metric] == pytest.approx((sum(hits) / 11, stderr(hits), 11))
    assert all(module.training for module in before.modules())
    checkpoint = mu.save(before, tmp_path / "model")
    assert rows(benchmark(checkpoint, ["homes"], include_path=folder, batch_size=3)) == found
    assert rows(benchmark(plain(), ["homes"], include_path=folder, tokenizer=byte_level_bos())) == found


def test_limits_and_groups(folder: Path) -> None:
    found = rows(benchmark(bridge(), "both", include_path=folder, limit=6))
    first, few = right(6), right(4)
    assert found["homes", "acc"] == pytest.approx((sum(first) / 6, stderr(first), 6))
    assert found["few_homes", "acc"] == pytest.approx((sum(few) / 4, stderr(few), 4))
    assert found["both", "acc"][::2] == pytest.approx(((sum(first) + sum(few)) / 10, 10))


def test_the_callers_random_numbers_go_on() -> None:
    def seeded() -> None:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)

    def draws() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002

    seeded()
    expected = draws()
    seeded()
    with _own_randomness():
        assert draws() == expected
        seeded()
    assert draws() == expected


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ("home", {}, r"unknown task 'home'; near it are homes"),
        (["homes", "qqqqqqq"], {}, r"unknown task 'qqqqqqq'$"),
        ("lost_homes", {}, r"task 'lost_homes' cannot be had: .*missing\.jsonl"),
        ([], {}, "no task to ask"),
        ("homes", {"limit": 0}, "limit must be at least 1, not 0"),
        ("homes", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ("homes", {"include_path": "nowhere"}, "include_path='nowhere': no such folder"),
    ],
)
def test_mistakes_are_one_line(folder: Path, tasks: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        benchmark(bridge(), tasks, **({"include_path": folder} | options))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_hub_that_does_not_answer_is_named_with_the_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'nobody/homes' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(UserError, match=r"^task 'homes' cannot be had: ConnectionError: Couldn't reach .* on the Hub$"):
        benchmark(bridge(), "homes", include_path=folder)


def test_tasks_that_run_generated_code_are_refused(folder: Path) -> None:
    (folder / "homes.yaml").write_text((folder / "homes.yaml").read_text() + "unsafe_code: true\n")
    with pytest.raises(UserError, match="task 'homes' runs code that the model writes"):
        benchmark(bridge(), "homes", include_path=folder)


def test_models_that_cannot_be_asked(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer.*tokenizer="):
        benchmark(plain(), "homes", include_path=folder)
    with pytest.raises(UserError, match="Linear: not a bridge"):
        benchmark(torch.nn.Linear(2, 2), "homes", include_path=folder)
    with pytest.raises(UserError, match="no such folder"):
        benchmark("./nowhere", "homes", include_path=folder)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(UserError, match=r'need lm-eval .*pip install "lm-eval>=0\.4\.13,<0\.5"'):
        benchmark("organism", "hellaswag")


def test_nothing_imports_the_harness_before_it_is_asked() -> None:
    code = "import sys, mechunlearn.evaluation\nassert 'lm_eval' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
