"""Find and open the run folders that a report is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..attacks import summary as attacks
from ..dissection.summary import NEEDED
from ..errors import UserError
from ..runs import read_frame, read_run

_CONTROLS = ["control", "site", "metric", "expected", "measured", "tolerance", "passed"]
_FACTS = ["fact", "question", "prompt", "answer", "before_answer", "after_answer"]
_FACTS += [f"{which}_{what}" for what in ("logprob", "correct") for which in ("before", "after")]
_ANSWERS = ["fact", "question", "site", "direction", "first_layer", "last_layer", "answer", "correct"]
_UNLEARNING = ["stage", "step", "inside", "scale", "forget_recall"]
_EVALUATION = ["measure", "value", "low", "high", "n"]
KINDS = ("dissection", "unlearning", "attacks", "evaluation")


@dataclass(frozen=True)
class DissectionRun:
    """A finished dissection as it lies on disk; `name` is its place below the report's folder."""

    name: str
    run: dict[str, Any]
    frame: pd.DataFrame
    controls: pd.DataFrame
    facts: pd.DataFrame
    answers: pd.DataFrame


@dataclass(frozen=True)
class UnlearningRun:
    """A finished unlearning run: its curve, one row an evaluation."""

    name: str
    run: dict[str, Any]
    frame: pd.DataFrame


@dataclass(frozen=True)
class AttacksRun:
    """A finished run of attacks: one row a question under an attack."""

    name: str
    run: dict[str, Any]
    frame: pd.DataFrame


@dataclass(frozen=True)
class EvaluationRun:
    """A finished evaluation: one row a group and measure."""

    name: str
    run: dict[str, Any]
    frame: pd.DataFrame


@dataclass(frozen=True)
class Found:
    """What lies at and below a folder. `unfinished` and `others` are names of runs that are not shown."""

    dissections: tuple[DissectionRun, ...]
    unlearnings: tuple[UnlearningRun, ...]
    attacks: tuple[AttacksRun, ...]
    evaluations: tuple[EvaluationRun, ...]
    unfinished: tuple[str, ...]
    others: tuple[str, ...]


def find(folder: str | Path) -> Found:
    """Open every run at or below a folder, in the order of their paths.

    Raises:
        UserError: no such folder, no finished run in it, or a run whose files are broken (the file is named).
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give the folder of a run, or one above several runs")
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    unfinished, others = [], []
    for path in sorted(file.parent for file in folder.rglob("run.json") if file.is_file()):
        name = path.relative_to(folder).as_posix() if path != folder else folder.resolve().name
        run = read_run(path)
        kind = run["kind"]
        if kind not in KINDS:
            others.append(f"{name} ({kind})")
        elif kind == "unlearning" and path.parent.name == "stages":
            continue  # the layered run above tells of all its stages
        elif not (path / "frame.parquet").exists() or (kind != "dissection" and not run.get("about")):
            unfinished.append(name)
        else:
            found[kind].append(_open(kind, name, path, run))
    if not any(found.values()):
        raise UserError(_nothing(folder, unfinished, others))
    dissections, unlearnings, attacked, evaluated = (tuple(found[kind]) for kind in KINDS)
    return Found(dissections, unlearnings, attacked, evaluated, tuple(unfinished), tuple(others))


def _open(
    kind: str, name: str, path: Path, run: dict[str, Any]
) -> DissectionRun | UnlearningRun | AttacksRun | EvaluationRun:
    if kind == "dissection":
        return _dissection(name, path, run)
    file = path / "frame.parquet"
    if kind == "unlearning":
        return UnlearningRun(name, run, _frame(file, _UNLEARNING))
    if kind == "evaluation":
        return EvaluationRun(name, run, _with_rows(_frame(file, _EVALUATION), file))
    frame = _frame(file, attacks.NEEDED)
    _with_rows(frame[(frame["model"] == "after") & (frame["role"] == "forget") & (frame["attack"] != "none")], file)
    return AttacksRun(name, run, frame)


def _dissection(name: str, path: Path, run: dict[str, Any]) -> DissectionRun:
    if not isinstance(run.get("about"), dict):
        raise UserError(f"{path / 'run.json'}: no field 'about': this is not a finished dissection")
    return DissectionRun(
        name,
        run,
        _with_rows(_frame(path / "frame.parquet", NEEDED), path / "frame.parquet"),
        _frame(path / "controls.parquet", _CONTROLS),
        _frame(path / "facts.parquet", _FACTS),
        _frame(path / "answers.parquet", _ANSWERS),
    )


def _frame(path: Path, columns: list[str]) -> pd.DataFrame:
    frame = read_frame(path)
    if missing := [column for column in columns if column not in frame.columns]:
        raise UserError(f"{path}: no column {', '.join(missing)}; was it written by another version?")
    return frame


def _with_rows(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if frame.empty:
        raise UserError(f"{path}: has no rows: there is nothing to report")
    return frame


def _nothing(folder: Path, unfinished: list[str], others: list[str]) -> str:
    if unfinished:
        return (
            f"{folder}: no finished run ({', '.join(unfinished)} not finished); give the same command again "
            "to go on with it"
        )
    if others:
        return f"{folder}: only runs that a report does not show: {', '.join(others)}"
    return f"{folder}: no run folder at or below it (a run folder holds a run.json)"
