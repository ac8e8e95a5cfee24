"""Find and open the run folders that a report is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jinja2 import UndefinedError

from ..attacks import summary as attacks
from ..dissection.result import FRAMES
from ..errors import UserError
from ..evaluation import Evaluation
from ..reading import named, there
from ..runs import check_files, read_frame, read_run
from ..unlearning import result as unlearning

Told = TypeVar("Told")
KINDS = ("dissection", "unlearning", "attacks", "evaluation")


@dataclass(frozen=True)
class Files:
    """A finished run as it lies on disk; `name` is its place below the report's folder."""

    name: str
    run: dict[str, Any]

    @property
    def label(self) -> str:
        """What the run is called: as its maker named it, else by its folder."""
        return str(self.run["about"].get("name") or self.name)


@dataclass(frozen=True)
class DissectionFiles(Files):
    """A finished dissection."""

    frame: pd.DataFrame
    controls: pd.DataFrame
    facts: pd.DataFrame
    answers: pd.DataFrame


@dataclass(frozen=True)
class UnlearningFiles(Files):
    """A finished unlearning run: its curve, one row an evaluation."""

    frame: pd.DataFrame


@dataclass(frozen=True)
class AttacksFiles(Files):
    """A finished run of attacks: one row a question under an attack."""

    frame: pd.DataFrame


@dataclass(frozen=True)
class EvaluationFiles(Files):
    """A finished evaluation."""

    result: Evaluation


@dataclass(frozen=True)
class Found:
    """What lies at and below a folder. `unfinished` and `others` are names of runs that are not shown."""

    dissections: tuple[DissectionFiles, ...]
    unlearnings: tuple[UnlearningFiles, ...]
    attacks: tuple[AttacksFiles, ...]
    evaluations: tuple[EvaluationFiles, ...]
    unfinished: tuple[str, ...]
    others: tuple[str, ...]


def find(folder: str | Path) -> Found:
    """Open every run at or below a folder, in the order of their paths.

    Raises:
        UserError: no such folder, no finished run in it, or a run whose files are broken (the file is named).
    """
    folder = Path(folder)
    if not there(folder):
        raise UserError(f"{named(folder)}: no such folder")
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give the folder of a run, or one above several runs")
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    unfinished, others = [], []
    for path in sorted(file.parent for file in folder.rglob("run.json") if file.is_file()):
        name = path.relative_to(folder).as_posix() if path != folder else folder.resolve().name
        run = read_run(path)
        kind = run["kind"]
        if kind not in KINDS:
            others.append(f"{name} ({kind:.60})")
        elif kind == "unlearning" and path.parent.name == "stages":
            continue  # the layered run above tells of all its stages
        elif not run["about"] or not (path / "frame.parquet").exists():
            unfinished.append(name)
        else:
            check_files(path, run, frames=True)
            found[kind].append(told(name, partial(_open, kind, name, path, run)))
    if not any(found.values()):
        raise UserError(_nothing(folder, unfinished, others))
    dissections, unlearnings, attacked, evaluated = (tuple(found[kind]) for kind in KINDS)
    return Found(dissections, unlearnings, attacked, evaluated, tuple(unfinished), tuple(others))


def _open(
    kind: str, name: str, path: Path, run: dict[str, Any]
) -> DissectionFiles | UnlearningFiles | AttacksFiles | EvaluationFiles:
    if kind == "dissection":
        return _dissection(name, path, run)
    file = path / "frame.parquet"
    if "prompts" not in run["about"].get("settings", {}):
        raise UserError(
            f"{path / 'run.json'}: does not say in which phrasings was asked; was it written by another version?"
        )
    if kind == "unlearning":
        return UnlearningFiles(name, run, read_frame(file, unlearning.NEEDED))
    if kind == "evaluation":
        found = Evaluation.load(path)
        _with_rows(found.summary(), file)
        return EvaluationFiles(name, run, found)
    frame = read_frame(file, attacks.NEEDED)
    _with_rows(frame[(frame["model"] == "after") & (frame["role"] == "forget") & (frame["attack"] != "none")], file)
    return AttacksFiles(name, run, frame)


def _dissection(name: str, path: Path, run: dict[str, Any]) -> DissectionFiles:
    frames = {part: read_frame(path / f"{part}.parquet", columns) for part, columns in FRAMES.items()}
    for part in ("frame", "controls", "facts"):
        _with_rows(frames[part], path / f"{part}.parquet")
    return DissectionFiles(name, run, **frames)


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


def told(name: str, tell: Callable[[], Told]) -> Told:
    """What is told of a run.

    Raises:
        UserError: what the run says of itself is not as it was written.
    """
    try:
        return tell()
    except UserError as error:
        if name in str(error):
            raise
        raise UserError(f"{name}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError) as error:
        raise UserError(
            f"{name}: what its run.json and frames say cannot be told ({type(error).__name__}: {error}); were they "
            "changed, or written by another version? Make the run again, or move it out of the report's folder"
        ) from error
