"""What is answered under a patch, in absolute terms: a share of a distance is not the answer.

A patch can undo nine tenths of a squared difference of many nats and still leave the answer hidden behind what is left
of it. So whatever is said about the *answer* rests on this: whether every answer token is the most probable one, the
rank of the right tokens, and their probability (the geometric mean over the answer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..evaluation import mean_interval
from .summary import KEYS

RIGHT = "answered_right"  # in place of a metric, in the frame that `summarise_said` gives
PLACE = ["site", "direction", "first_layer", "last_layer"]
LEAST = 0.05  # where before and after differ by less, no share of the way between them is told
BACK = 0.5  # of that way: from here on the answers are said to be back


@dataclass(frozen=True)
class Said:
    """Answers to the same questions by the donor, by the recipient, and by the recipient under one patch.

    `right`, `low`, `high`: the share answered right under the patch, with its 95 % interval over subjects;
    `probability` and `rank`: means over facts, None where the dissection is of a version that did not record them.
    """

    right: float
    low: float
    high: float
    before: float
    after: float
    probability: tuple[float, float, float] | None  # before, after, under the patch
    rank: tuple[float, float, float] | None
    direction: str = "before->after"

    @property
    def returned(self) -> float | None:
        """The share of the way from the recipient's answers to the donor's; None where the two hardly differ."""
        return self._way(self.before, self.after, self.right)

    @property
    def likelier(self) -> float | None:
        """Likewise of the answer's probability; None also where it was not recorded.

        Of a long answer a single wrong token makes the whole wrong: it can be all but lost by count, before and after,
        and yet have lost nearly all its probability.
        """
        return None if self.probability is None else self._way(*self.probability)

    @property
    def back(self) -> bool | None:
        """Whether the donor's answers are back, by count and by probability; None where the two say different things,
        or neither differs between the models (`alike`)."""
        verdicts = {way >= BACK for way in (self.returned, self.likelier) if way is not None}
        return verdicts.pop() if len(verdicts) == 1 else None

    @property
    def alike(self) -> bool:
        """Whether neither the answers nor, where recorded, their probability differ between the two models."""
        return self.returned is None and self.likelier is None

    def _way(self, before: float, after: float, under: float) -> float | None:
        donor, recipient = (before, after) if self.direction == "before->after" else (after, before)
        return None if abs(donor - recipient) < LEAST else (under - recipient) / (donor - recipient)


def said_under(
    facts: pd.DataFrame, answers: pd.DataFrame, site: str, first: int, last: int, direction: str
) -> Said | None:
    """What is answered under this patch; None where the dissection has no answers to it."""
    place = dict(zip(PLACE, (site, direction, first, last), strict=True))
    rows = answers[np.logical_and.reduce([answers[name] == value for name, value in place.items()])]
    if rows.empty or facts.empty:
        return None
    by_fact = rows.groupby("fact")["correct"].mean()
    low, high = mean_interval(by_fact.to_numpy(float), _clusters(rows, by_fact.index), share=True)
    before, after = (float(facts.groupby("fact")[f"{which}_correct"].mean().mean()) for which in ("before", "after"))
    return Said(
        float(by_fact.mean()), float(low), float(high), before, after,
        _three(facts, rows, "probability"), _three(facts, rows, "rank"), direction,
    )  # fmt: skip


def _three(facts: pd.DataFrame, rows: pd.DataFrame, name: str) -> tuple[float, float, float] | None:
    """Means over facts of the model before, the model after, and under the patch."""
    columns = [(facts, f"before_{name}"), (facts, f"after_{name}"), (rows, name)]
    if any(column not in table for table, column in columns):
        return None
    before, after, under = (float(table.groupby("fact")[column].mean().mean()) for table, column in columns)
    return before, after, under


def _clusters(rows: pd.DataFrame, names: pd.Index) -> np.ndarray:
    """The subject of each of these facts; the fact itself where it has none."""
    if "subject" not in rows:
        return names.to_numpy(object)
    subjects = rows.drop_duplicates("fact").set_index("fact")["subject"].reindex(names)
    return subjects.where(subjects.notna(), names.to_series(index=names)).to_numpy(object)


def summarise_said(answers: pd.DataFrame) -> pd.DataFrame:
    """The share answered right under every patch, in the columns of `summarise_recovery`, to be drawn like it."""
    frame = answers.assign(position=pd.array([pd.NA] * len(answers), "Int64"), metric=RIGHT)
    frame["kind"] = frame.get("kind", "activation")
    rows = []
    for key, part in frame.groupby(KEYS, sort=False, dropna=False, observed=True):
        first, last = int(part["first_layer"].iloc[0]), int(part["last_layer"].iloc[0])
        by_fact = part.groupby("fact")["correct"].mean()
        clusters = _clusters(part, by_fact.index)
        low, high = mean_interval(by_fact.to_numpy(float), clusters, share=True)
        value = float(by_fact.mean())
        rows.append(
            dict(zip(KEYS, tuple(key), strict=True))
            | {"centre": (first + last) / 2, "n": len(by_fact), "n_undefined": 0, "n_clusters": len(set(clusters))}
            | {"mean_of_ratios": value, "mean_low": float(low), "mean_high": float(high), "ratio_of_means": value,
               "ratio_low": float(low), "ratio_high": float(high)}
        )  # fmt: skip
    return pd.DataFrame(rows)
