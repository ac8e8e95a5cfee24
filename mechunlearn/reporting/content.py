"""What a report says, whatever it is written as: the sections of every run at or below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .folders import find
from .sections.attacks import AttacksSection, attacks_section
from .sections.dissection import DissectionSection, dissection_section
from .sections.evaluation import EvaluationSection, evaluation_section
from .sections.unlearning import UnlearningSection, unlearning_section

QUESTION = "Was the knowledge removed, or only made unreachable, and where?"


@dataclass(frozen=True)
class Content:
    """Everything that is told; `unfinished` and `others` are names of runs that are not shown."""

    title: str
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
        return cls(
            title=f"mechunlearn: {Path(folder).resolve().name}",
            dissections=[dissection_section(run, f"dissection-{i}") for i, run in enumerate(found.dissections)],
            unlearnings=[unlearning_section(run, f"unlearning-{i}") for i, run in enumerate(found.unlearnings)],
            attacks=[attacks_section(run, f"attacks-{i}") for i, run in enumerate(found.attacks)],
            evaluations=[evaluation_section(run, f"evaluation-{i}") for i, run in enumerate(found.evaluations)],
            unfinished=found.unfinished,
            others=found.others,
        )

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
