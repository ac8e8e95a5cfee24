"""From values fact by fact to a table: means of groups, and paired differences of two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..errors import UserError
from .intervals import bootstrap_interval
from .measures import MEASURES, TEXT

LABELS = ("question", "fact", "subject", "relation", "domain", "fold", "role")


def check_groups(by: Sequence[str]) -> None:
    """Raises UserError unless `by` names fields that facts can be grouped by."""
    unknown = [field for field in by if field not in LABELS]
    if unknown or not by:
        raise UserError(f"facts cannot be grouped by {unknown or 'nothing'}; group by any of {', '.join(LABELS)}")


def summarise(
    facts: pd.DataFrame | None,
    texts: pd.DataFrame | None = None,
    *,
    by: Sequence[str] = ("role",),
    seed: int = 0,
) -> pd.DataFrame:
    """The table that `Evaluation.summary` gives, from the frames of an evaluation.

    Questions that ask for one fact are averaged first: `n` and the intervals are over facts.

    Raises:
        UserError: `by` names no fields of facts; a value that is infinite.
    """
    check_groups(by)
    rows = []
    for group, part in _groups(facts, by) if facts is not None else ():
        for measure in (name for name in MEASURES if name in part):
            values = _by_fact(part["fact"], part[measure])
            if len(values):
                rows.append([*group, measure, values.mean(), *bootstrap_interval(values, seed=seed), len(values)])
    for measure in (name for name in TEXT if texts is not None and name in texts):
        assert texts is not None
        count = texts["tokens"].to_numpy(dtype=float)
        total = texts[measure].to_numpy(dtype=float) * count
        edges = bootstrap_interval(total, count, seed=seed)
        rows.append(["text", *[None] * (len(by) - 1), measure, total.sum() / count.sum(), *edges, len(count)])
    return pd.DataFrame(rows, columns=[*by, "measure", "value", "low", "high", "n"])


def paired(first: pd.DataFrame, second: pd.DataFrame, *, by: Sequence[str] = ("role",), seed: int = 0) -> pd.DataFrame:
    """How two models differ on the same facts.

    The interval is that of the mean difference, resampling facts: what makes a fact hard for both models cancels,
    so it is narrower than the two models' own intervals suggest, and these may overlap where it excludes 0.

    Args:
        first, second: frames of the evaluations of two models, on the same facts in any order; several runs over
            seeds are averaged fact by fact before.

    Returns:
        One row a group and measure: the columns of `by`, `measure`, `first` and `second` (means), `difference`
        (second − first), its `low` and `high`, `n`. Measures are those that both have; a fact counts where both
        have a value.

    Raises:
        UserError: other facts, a fact twice, no measure in common; as `summarise`.
    """
    check_groups(by)
    for frame in (first, second):
        if (twice := frame["question"].duplicated()).any():
            raise UserError(f"question {frame['question'][twice].iloc[0]!r} is there twice; average it before")
    strangers = set(first["question"]) ^ set(second["question"])
    if strangers:
        raise UserError(f"the two models were asked different facts; only one has {min(strangers)!r}")
    measures = [name for name in MEASURES if name in first and name in second]
    if not measures:
        raise UserError("the two models have no measure in common")
    second = second.set_index("question").loc[first["question"]].reset_index()
    rows = []
    for group, part in _groups(first, by):
        other = second.loc[part.index]
        for measure in measures:
            known = part[measure].notna().to_numpy() & other[measure].notna().to_numpy()
            if known.any():
                old, new = (_by_fact(part["fact"][known], frame[measure][known]) for frame in (part, other))
                edges = bootstrap_interval(new - old, seed=seed)
                rows.append([*group, measure, old.mean(), new.mean(), (new - old).mean(), *edges, len(old)])
    return pd.DataFrame(rows, columns=[*by, "measure", "first", "second", "difference", "low", "high", "n"])


def _by_fact(facts: pd.Series, values: pd.Series) -> Float[np.ndarray, " fact"]:
    """The mean over the questions of each fact: they fail and succeed together, so only facts can be resampled."""
    return values.dropna().groupby(facts, sort=False).mean().to_numpy(dtype=float)


def _groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    keyed = frame.reset_index(drop=True)
    # As text, for "all" and "text" share the column with numbers of folds, which Parquet would not store.
    keys = [pd.Series(["all" if pd.isna(value) else str(value) for value in keyed[field]], name=field) for field in by]
    yield from ((group, part) for group, part in keyed.groupby(keys, sort=False))  # pyright: ignore[reportReturnType]
