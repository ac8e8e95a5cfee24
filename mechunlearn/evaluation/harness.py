"""Public benchmarks (MMLU, HellaSwag, WMDP, …), asked by EleutherAI's lm-evaluation-harness, which is an extra."""

from __future__ import annotations

import copy
import difflib
import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checking import checked
from ..errors import UserError, check_whole
from ..models import hf, load
from ..models.forward import measuring
from ..undoing import as_found

INSTALL = 'pip install "lm-eval>=0.4.13,<0.5"'
REFUSED = {"UNSAFE_CODE": "runs code that the model writes", "MULTIMODAL": "shows more than text"}


@as_found
@checked
def benchmark(
    model: str | Path | nn.Module,
    tasks: str | Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    include_path: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> pd.DataFrame:
    """How a model does in public benchmarks, with the prompts, shots and metrics that each task defines.

    Args:
        model: a checkpoint folder or a hub name (opened in float32), a TransformerBridge, or a model of transformers.
        tasks: names of tasks, groups or tags of the harness, such as "mmlu", "hellaswag" or "wmdp".
        limit: only so many questions of each task: to try out, not to report.
        batch_size: rows in one forward pass.
        include_path: a folder with more tasks (YAML); they go before the harness's own. Tasks may hold code: it is run.
        tokenizer: for a model of transformers, which carries none.

    Returns:
        One row per task, or group of tasks, and metric: `task`, `metric` (as the harness calls it, with its filter
        where it has one), `value`, `stderr` (NaN where unknown) and `n`, the number of questions.

    Raises:
        UserError: lm-eval is not installed; an unknown task, one whose data cannot be had, one that runs generated
            code or shows pictures; no tokenizer; a model that `load` refuses.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise UserError("no task to ask: tasks=['hellaswag', …]")
    for what, number in (("limit", limit), ("batch_size", batch_size)):
        if number is not None:
            check_whole(what, number, 1)
    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(f"include_path={str(include_path)!r}: no such folder")
    try:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError(f"public benchmarks need lm-eval ({error}): {INSTALL}") from error

    with _quiet(), _own_randomness():
        manager = _manager(names, include_path)
        asked = [task for name in names for task in _load(name, manager)]
        module, words = _opened(model, tokenizer)
        with measuring(module):
            wrap: Any = HFLM  # which lm-eval's registry gives no signature
            asks = wrap(pretrained=module, tokenizer=words, batch_size=batch_size)
            found: Any = simple_evaluate(asks, tasks=asked, limit=limit, log_samples=False, task_manager=manager)
    return _frame(found["results"])


def _opened(
    model: str | Path | nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A module that the harness can run, and a tokenizer that it may change."""
    if isinstance(model, str | Path):
        model = load(model, tokenizer=tokenizer)
    if isinstance(model, TransformerBridge):
        module, tokenizer = hf(model), tokenizer or model.tokenizer
    elif isinstance(model, PreTrainedModel):
        module = model
    else:
        raise UserError(f"{type(model).__name__}: not a bridge and not a model of transformers")
    if tokenizer is None:
        raise UserError("the model has no tokenizer, so it cannot be asked: benchmark(…, tokenizer=…)")
    return module, copy.deepcopy(tokenizer)


def _manager(names: Sequence[str], include_path: str | Path | None) -> Any:
    """What knows the tasks. Reading the harness's own, which are thousands, is spared where the folder has them all."""
    from lm_eval.tasks import TaskManager

    if include_path is None:
        return _all_tasks()
    alone = TaskManager(include_path=str(include_path), include_defaults=False)
    return alone if {*names} <= {*alone.all_subtasks} else TaskManager(include_path=str(include_path))


@cache
def _all_tasks() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _load(name: str, manager: Any) -> list[Any]:
    """The group of that name, the task, or the tasks of a tag, with their data.

    Raises:
        UserError: unknown, not to be had, or not for a model that only reads text.
    """
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=5)
        raise UserError(f"unknown task {name!r}" + (f"; near it are {', '.join(near)}" if near else ""))
    try:
        found = manager.load([name])
    except Exception as error:  # of the hub, of the data's reader, of the task's own code
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise UserError(f"task {name!r} cannot be had: {type(error).__name__}: {reason}") from error
    for task in found["tasks"].values():
        for flag, what in REFUSED.items():
            if getattr(task, flag, False):
                raise UserError(f"task {task.task_name!r} {what}, which is not done here; leave it out")
    groups = found.get("groups", {})
    return [groups[name]] if name in groups else list(found["tasks"].values())


def _frame(results: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per metric, from the harness's keys: "acc,none" and "acc_stderr,none"."""
    rows = []
    for task, found in results.items():
        for key, value in found.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                rows.append(
                    {
                        "task": task,
                        "metric": metric if kind == "none" else key,
                        "value": _number(value),
                        "stderr": _number(found.get(f"{metric}_stderr,{kind}")),
                        "n": int(found.get("sample_count", {}).get(key, found["sample_len"])),
                    }
                )
    return pd.DataFrame(rows, columns=["task", "metric", "value", "stderr", "n"])


def _number(value: object) -> float:
    return float(value) if isinstance(value, Real) else math.nan  # the harness writes "N/A" where it has none


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's warnings about its own use of models."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The harness seeds all generators; the caller's go on as if nothing had been."""
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002
