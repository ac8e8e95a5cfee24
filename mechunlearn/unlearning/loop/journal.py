"""Evaluations told as they happen: in a file that can be followed while a run lasts, and to a function of the caller's.

The frame of a run is what counts; the file says the same, a line of JSON for each of its rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import UserError
from ...reading import read_bytes, there
from ...runs import write_atomically

OnEvaluation = Callable[[dict[str, Any]], object]
"""What is called with each row: `stage`, `step` and the other columns of the frame that have a value there."""
NAME = "log.jsonl"


@dataclass(frozen=True)
class Journal:
    """Tells of the evaluations of one stage.

    Attributes:
        path: the file; None writes none.
        on_evaluation: what to call; None calls nothing.
        stage: which one it is, from 1.
        spent: steps and costs of the stages before, from which those of this one count on.
        earlier: the rows of these stages.
    """

    path: Path | None = None
    on_evaluation: OnEvaluation | None = None
    stage: int = 1
    spent: Mapping[str, int | float] = field(default_factory=dict)
    earlier: Sequence[Mapping[str, Any]] = ()

    def begin(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """This stage goes on behind these rows of its own: of what an interrupted call wrote, no more is left."""
        self.mend([*self.earlier, *map(self.whole, rows)])

    def tell(self, row: Mapping[str, Any]) -> None:
        """Of one evaluation.

        Raises:
            UserError: the file cannot be written; and whatever the caller's function raises.
        """
        whole = self.whole(row)
        if self.path is not None:
            _append(self.path, _line(whole))
        if self.on_evaluation is not None:
            self.on_evaluation(whole)

    def whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the frame of the run has it."""
        counted = {name: row[name] + before for name, before in self.spent.items()}
        return {"stage": self.stage, **row, **counted}

    def mend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These rows and no others stand in the file. What is too much is cut where it lies: somebody may follow it.

        Raises:
            UserError: something else than a file of lines has its name; it cannot be written.
        """
        if self.path is None:
            return
        wanted = b"".join(map(_line, rows))
        held = read_bytes(self.path) if there(self.path) else b""
        if held == wanted:
            return
        if held.startswith(wanted):
            with _writing(self.path):
                os.truncate(self.path, len(wanted))
        else:
            write_atomically(self.path, wanted)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a run's frame, each without what was not measured in it."""
    return [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in frame.to_dict("records")]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: could not be written: {error.strerror or error}") from error


def _append(path: Path, line: bytes) -> None:
    """Closed at once, so that whoever follows the file sees the line."""
    with _writing(path), path.open("ab") as file:
        file.write(line)


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()
