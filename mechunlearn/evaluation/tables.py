"""From values fact by fact to a table: means of groups, and paired differences of two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ..checking import checked
from ..errors import UserError, check_whole
from ..frames import check_frame
from .clusters import clusters_of
from .intervals import bootstrap_interval, count_clusters, difference_interval, mean_interval
from .measures import MEASURES, TEXT

LABELS = ("question", "fact", "subject", "relation", "domain", "fold", "role")
NEEDED: dict[str, Any] = {"question": str, "fact": str, "role": str | None}  # columns of the facts, what they hold


def check_groups(by: Sequence[str]) -> None:
    """Raises UserError unless `by` names fields that facts can be grouped by."""
    if isinstance(by, str):
        raise UserError(f"by must be a list of fields, not the text {by!r}: by=[{by!r}]")
    unknown = [field for field in by if field not in LABELS]
    if twice := {field for field in by if list(by).count(field) > 1}:
        raise UserError(f"facts cannot be grouped by {min(twice)} twice")
    if unknown or not by:
        raise UserError(f"facts cannot be grouped by {unknown or 'nothing'}; group by any of {', '.join(LABELS)}")


@checked
def summarise_measures(
    facts: pd.DataFrame | None,
    texts: pd.DataFrame | None = None,
    *,
    by: Sequence[str] = ("role",),
    cluster: str = "subject",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The table that `Evaluation.summary` gives, from the frames of an evaluation.

    Questions that ask for one fact (`Facts.questions`) are averaged first: `n` counts facts.

    Args:
        facts, texts: the frames of `per_question` and `per_text`.
        by: fields that make the groups.
        cluster: what intervals resample: a column that labels facts, or "fact" for each by itself; `n_clusters` says
            how many there are. Texts are resampled each by itself.
        level, resamples, seed: of the intervals, which are Wilson's for shares (`Measure.share`), see `share_interval`,
            and by the bootstrap for the rest.

    Returns:
        The columns of `by`, then `measure`, `value`, `low`, `high`, `n`, `n_clusters`.

    Raises:
        UserError: `by` names no fields of facts; a value that is infinite; as `clusters_of`.
    """
    check_groups(by)
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    facts = None if facts is None else _check("the frame of an evaluation", facts, by)
    if texts is not None and len(texts):
        texts = check_frame(
            "the frame of texts", texts, {"tokens": int} | {name: float for name in TEXT if name in texts}
        )
    options = {"level": level, "resamples": resamples, "seed": seed}
    rows = [] if facts is None else list(_fact_rows(facts, by, cluster, options))
    rows += [] if texts is None or texts.empty else list(_text_rows(texts, len(by) - 1, options))
    return pd.DataFrame(rows, columns=[*by, "measure", "value", "low", "high", "n", "n_clusters"])


def _fact_rows(facts: pd.DataFrame, by: Sequence[str], cluster: str, options: dict[str, Any]) -> Iterator[list]:
    clusters = clusters_of(facts, cluster)
    for group, part in _groups(facts, by):
        for measure in (name for name in MEASURES if name in part):
            values = _by_fact(part["fact"], part[measure])
            if len(values):
                labels = clusters.loc[values.index].to_numpy()
                edges = mean_interval(values, labels, share=MEASURES[measure].share, **options)
                yield [*group, measure, values.mean(), *edges, len(values), count_clusters(labels)]


def _text_rows(texts: pd.DataFrame, n_empty: int, options: dict[str, Any]) -> Iterator[list]:
    count = texts["tokens"].to_numpy(dtype=float)
    for measure in (name for name in TEXT if name in texts):
        total = texts[measure].to_numpy(dtype=float) * count
        edges = bootstrap_interval(total, count, **options)
        yield ["text", *[None] * n_empty, measure, total.sum() / count.sum(), *edges, len(count), len(count)]


@checked
def paired(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    by: Sequence[str] = ("role",),
    cluster: str = "subject",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How two models differ on the same facts.

    The interval is that of the mean difference: what makes a fact hard for both models cancels, so it is narrower than
    the two models' own intervals suggest, and these may overlap where it excludes 0. Of shares it is Newcombe's
    (`share_difference_interval`), of other measures the bootstrap's.

    Args:
        first, second: frames of the evaluations of two models, on the same facts in any order; several runs over
            seeds are averaged fact by fact before.
        by, cluster, level, resamples, seed: as in `summarise_measures`; labels are those of `first`.

    Returns:
        One row a group and measure: the columns of `by`, `measure`, `first` and `second` (means), `difference`
        (second − first), its `low` and `high`, `n`, `n_clusters`. Measures are those that both have; a fact counts
        where both have a value.

    Raises:
        UserError: other facts, a fact twice, no measure in common; as `summarise_measures`.
    """
    check_groups(by)
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    first = _check("first, the frame of an evaluation", first, by)
    second = _check("second, the frame of an evaluation", second)
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
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    clusters, rows = clusters_of(first, cluster), []
    for group, part in _groups(first, by):
        other = second.loc[part.index]
        for measure in measures:
            known = part[measure].notna().to_numpy() & other[measure].notna().to_numpy()
            if known.any():
                old, new = (_by_fact(part["fact"][known], frame[measure][known]) for frame in (part, other))
                labels = clusters.loc[old.index].to_numpy()
                edges = difference_interval(old, new, labels, share=MEASURES[measure].share, **options)
                counts = (len(old), count_clusters(labels))
                rows.append([*group, measure, old.mean(), new.mean(), (new - old).mean(), *edges, *counts])
    columns = [*by, "measure", "first", "second", "difference", "low", "high", "n", "n_clusters"]
    return pd.DataFrame(rows, columns=columns)


def _check(name: str, facts: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Raises UserError: this is not the frame of an evaluation, or lacks what is grouped by."""
    measures = {name: float | None for name in MEASURES if name in facts}
    return check_frame(name, facts, dict.fromkeys(by, Any) | NEEDED | measures)


def _by_fact(facts: pd.Series, values: pd.Series) -> pd.Series:
    """The mean over the questions of each fact, which fail and succeed together; facts in alphabetical order."""
    return values.astype(float).dropna().groupby(facts).mean()


def _groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    keyed = frame.reset_index(drop=True)
    # As text, for "all" and "text" share the column with numbers of folds, which Parquet would not store.
    keys = [pd.Series(["all" if pd.isna(value) else str(value) for value in keyed[field]], name=field) for field in by]
    yield from ((group, part) for group, part in keyed.groupby(keys, sort=False))  # pyright: ignore[reportReturnType]
