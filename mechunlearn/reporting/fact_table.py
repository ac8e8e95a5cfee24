"""Question by question: what was known, what is forgotten, what a patch brings back; plain text, writers escape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..dissection.metrics import PAPER_METRIC
from ..dissection.peaks import Peak
from ..dissection.plotting.styles import site_words
from .elements import Cell

SHOWN = 2000  # facts on the page
STATUSES = {
    "before->after": {
        "came back": "forgotten, and answered right under the patch",
        "stayed away": "forgotten, and not answered right under the patch either",
        "still known": "the model after answers it right by itself",
        "never known": "the model before does not answer it right",
    },
    "after->before": {
        "knocked out": "known, and no longer answered right under the patch",
        "withstood": "known, and still answered right under the patch",
        "never known": "the model before does not answer it right",
    },
}


def counted(facts: pd.DataFrame) -> str:
    """How many facts a table of questions is about, and how many questions where these are more."""
    n, questions = facts["fact"].nunique(), len(facts)
    return f"{n} facts" if n == questions else f"{questions} questions about {n} facts"


@dataclass(frozen=True)
class Choice:
    """One patch that the table can show: what is answered under it, question by question."""

    label: str
    answers: list[str]
    correct: list[bool]
    recovery: list[float | None]  # of the squared difference of the logits; None where it is undefined
    statuses: list[str]
    asked: str  # "facts", or "questions" where facts are asked in several phrasings

    @property
    def told(self) -> str:
        """What the patch did, in a sentence."""
        back, away, out, kept = map(self.statuses.count, ("came back", "stayed away", "knocked out", "withstood"))
        if out + kept:
            return f"{out} of {out + kept} known {self.asked} are no longer answered right."
        return f"{back} of {back + away} forgotten {self.asked} are answered right again."


@dataclass(frozen=True)
class FactRow:
    """What does not change with the patch."""

    fact: Cell
    prompt: Cell
    answer: Cell
    before: Cell
    after: Cell
    before_correct: bool
    after_correct: bool


@dataclass(frozen=True)
class FactTable:
    """The facts of one dissection, with a choice of patches: for each site its best window, and all layers at once."""

    rows: list[FactRow]
    choices: list[Choice]
    statuses: dict[str, str]
    n_facts: int

    @classmethod
    def of(cls, facts: pd.DataFrame, answers: pd.DataFrame, frame: pd.DataFrame, peaks: tuple[Peak, ...]) -> FactTable:
        """From the frames of a dissection; sites in the order of how much they recover."""
        shown = facts.head(SHOWN)
        direction = "before->after" if (frame["direction"] == "before->after").any() else "after->before"
        answers, frame = (table[table["direction"] == direction] for table in (answers, frame))
        best = sorted((peak for peak in peaks if peak.defined), key=lambda peak: -peak.value)
        windows = [(peak.site, peak.first_layer, peak.last_layer, _label(peak)) for peak in best]
        last = int(frame["last_layer"].max())
        windows += [
            (peak.site, 0, last, f"{site_words(peak.site)}, all layers") for peak in best if peak.first_layer >= 0
        ]
        choices = [_choice(shown, answers, frame, *window) for window in dict.fromkeys(windows)]
        found = [choice for choice in choices if choice is not None]
        return cls(_rows(shown), found, STATUSES[direction], len(facts))

    @property
    def payload(self) -> str:
        """What the page's script needs to change the patch: JSON, answers as numbers of distinct texts."""
        texts = list(dict.fromkeys(text for choice in self.choices for text in choice.answers))
        number = {text: place for place, text in enumerate(texts)}
        states = list(self.statuses)
        choices = [
            {
                "answers": [number[text] for text in choice.answers],
                "correct": [int(value) for value in choice.correct],
                "recovery": choice.recovery,
                "statuses": [states.index(status) for status in choice.statuses],
                "told": choice.told,
            }
            for choice in self.choices
        ]
        return json.dumps({"texts": texts, "statuses": states, "choices": choices}, separators=(",", ":"))


def _label(peak: Peak) -> str:
    return site_words(peak.site) if peak.first_layer < 0 else f"{site_words(peak.site)}, {peak.where}"


def _rows(facts: pd.DataFrame) -> list[FactRow]:
    return [
        FactRow(
            fact=Cell.of(row["question"]),
            **{name: Cell.of(row[name]) for name in ("prompt", "answer")},
            **{which: Cell.of(row[f"{which}_answer"]) for which in ("before", "after")},
            before_correct=bool(row["before_correct"]),
            after_correct=bool(row["after_correct"]),
        )
        for row in facts.to_dict("records")
    ]


def _choice(
    facts: pd.DataFrame, answers: pd.DataFrame, frame: pd.DataFrame, site: str, first: int, last: int, label: str
) -> Choice | None:
    """What this patch did to every fact; None where the dissection has no such patch."""
    direction = str(frame["direction"].iloc[0])
    said = (
        _patch(answers, site, first, last).drop_duplicates("question").set_index("question").reindex(facts["question"])
    )
    if said["answer"].isna().any():
        return None
    measured = _patch(frame[frame["metric"] == PAPER_METRIC], site, first, last)
    recovery = measured[measured["position"].isna()].set_index("question")["recovery"].reindex(facts["question"])
    correct = [bool(value) for value in said["correct"]]
    return Choice(
        label,
        [_cut(Cell.of(text)) for text in said["answer"]],
        correct,
        [None if pd.isna(value) else round(float(value), 3) for value in recovery],
        [_status(row, direction, right) for row, right in zip(facts.to_dict("records"), correct, strict=True)],
        "facts" if facts["fact"].is_unique else "questions",
    )


def _patch(table: pd.DataFrame, site: str, first: int, last: int) -> pd.DataFrame:
    return table[(table["site"] == site) & (table["first_layer"] == first) & (table["last_layer"] == last)]


def _cut(cell: Cell) -> str:
    return cell.text + "…" * cell.cut


def _status(row: Mapping[Any, Any], direction: str, right: bool) -> str:
    if not row["before_correct"]:
        return "never known"
    if direction == "after->before":
        return "withstood" if right else "knocked out"
    if row["after_correct"]:
        return "still known"
    return "came back" if right else "stayed away"
