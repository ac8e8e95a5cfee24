"""What a report says, whatever it is written as: the sections of every run at or below a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from .answer import Answer, answer_table, answers
from .folders import find, told
from .sections.attacks import AttacksSection, attacks_section
from .sections.dissection import DissectionSection, dissection_section
from .sections.evaluation import EvaluationSection, evaluation_section
from .sections.unlearning import UnlearningSection, unlearning_section

Section = TypeVar("Section")
QUESTION = "Was the knowledge removed, or only made unreachable, and where?"


@dataclass(frozen=True)
class Content:
    """Everything that is told; `unfinished` and `others` are names of runs that are not shown."""

    title: str
    answers: list[Answer]
    dissections: list[DissectionSection]
    unlearnings: list[UnlearningSection]
    attacks: list[AttacksSection]
    evaluations: list[EvaluationSection]
    unfinished: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, folder: str | Path) -> Content:
        """From the run folders at or below this one.

        Raises:
            UserError: no such folder, no finished run in it, or broken files (named).
        """
        found = find(folder)
        dissections = _sections(dissection_section, "dissection", found.dissections)
        attacks = _sections(attacks_section, "attacks", found.attacks)
        said = [section.words for section in dissections], [section.words for section in attacks]
        return cls(
            title=f"mechunlearn: {Path(folder).resolve().name}",
            answers=told(str(folder), partial(answers, found, *said)),
            dissections=dissections,
            unlearnings=_sections(unlearning_section, "unlearning", found.unlearnings),
            attacks=attacks,
            evaluations=_sections(evaluation_section, "evaluation", found.evaluations),
            unfinished=found.unfinished,
            others=found.others,
        )

    @property
    def table(self) -> pd.DataFrame:
        """All models beside each other."""
        return answer_table(self.answers)

    @property
    def missing(self) -> list[str]:
        """What no run of the folder shows: a reader should not take silence for an answer."""
        return list(self._missing())

    def _missing(self) -> Iterator[str]:
        if not self.dissections:
            yield "Nothing was dissected: what follows shows what was forgotten, not how."
        if not self.attacks:
            yield "No attack was run: whether training or other prompts bring the knowledge back is not known."
        if not self.unlearnings and not self.evaluations:
            yield "What unlearning cost elsewhere (near and far facts, general text) was not measured."


def _sections(make: Callable[[Any, str], Section], kind: str, runs: Sequence[Any]) -> list[Section]:
    """A section a run.

    Raises:
        UserError: what a run says of itself is not as it was written.
    """
    return [told(run.name, partial(make, run, f"{kind}-{place}")) for place, run in enumerate(runs)]
