"""What a dissection says over facts: two estimators of recovery, each with n and a bootstrap interval.

*Mean of ratios* is the paper's Knowledge Recovery Score (arXiv 2410.06606): the mean over facts of
``1 - distance / baseline``. One fact with a tiny baseline can dominate it. *Ratio of means* is
``1 - sum(distance) / sum(baseline)``: every fact weighs as much as unlearning changed it. Where the
two disagree, a few facts carry the mean of ratios.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ..checking import checked
from ..errors import UserError, check_whole
from ..evaluation import bootstrap_interval, clusters_of, count_clusters, facts_of
from ..frames import check_frame

KEYS = ["site", "kind", "direction", "first_layer", "last_layer", "position", "metric"]
ESTIMATES = ["mean_of_ratios", "mean_low", "mean_high", "ratio_of_means", "ratio_low", "ratio_high"]
COLUMNS = [
    *["site", "kind", "direction", "first_layer", "last_layer", "centre", "position", "metric"],
    *ESTIMATES,
    *["n", "n_undefined", "n_clusters"],
]
NEEDED: dict[str, Any] = {  # columns of a dissection's frame, and what they hold
    "fact": str, "site": str, "kind": str, "direction": str, "first_layer": int, "last_layer": int,
    "position": int | None, "metric": str, "distance": float | None, "baseline": float, "recovery": float | None,
    "defined": bool,
}  # fmt: skip
MOST_LAYERS = 10_000  # of a model that a frame may speak of
_CELLS_AT_ONCE = 4_000_000  # resampled estimates held in memory at a time: 32 MB


class _ByFact(NamedTuple):
    """What is known of each fact in each group: zero where no question of it is defined."""

    asked: Bool[np.ndarray, "group fact"]
    defined: Bool[np.ndarray, "group fact"]
    recovery: Float[np.ndarray, "group fact"]  # mean over the defined questions
    distance: Float[np.ndarray, "group fact"]  # sums over them
    baseline: Float[np.ndarray, "group fact"]


@checked
def summarise_recovery(
    frame: pd.DataFrame, *, cluster: str = "subject", level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Summarise the rows of a dissection over its facts.

    Questions that ask for one fact are taken together first, those that are defined: their mean recovery, and the sums
    of their distances and baselines.

    Args:
        frame: one row per question × site × window × metric (`Dissection.frame`).
        cluster: what intervals resample: a column of the frame that labels facts, or "fact" for each by itself. A
            frame that has no subjects is resampled by fact.
        level: coverage of the percentile bootstrap intervals.
        resamples: how often; the same ones for every group with as many clusters, so that two sites or windows are
            compared on equal resamples, whatever else the frame holds.
        seed: of the resampling.

    Returns:
        One row per site × direction × window × position × metric with the columns `COLUMNS`, in the frame's
        order. `centre` is the middle of the window's layers (-1 for sites without layers). `n` counts the
        defined facts that both estimates rest on, `n_undefined` the others, which are never averaged,
        `n_clusters` the clusters of the defined ones. With n = 0 both estimates are NaN; with one cluster the
        intervals are (it says nothing about spread).

    Raises:
        UserError: columns are missing or hold something else, or a question occurs twice in a group (two dissections in
            one frame); as `clusters_of` and `bootstrap_interval`.
    """
    frame = check_frame("the frame of a dissection", frame, NEEDED)
    _refuse_impossible(frame)
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    group = frame.groupby(KEYS, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _refuse_repeats(group, frame["question" if "question" in frame else "fact"])
    clusters = clusters_of(frame, cluster)
    facts = _by_fact(frame, group, clusters.index)

    result = frame.loc[~pd.Series(group, index=frame.index).duplicated(), KEYS].reset_index(drop=True)
    result["centre"] = (result["first_layer"] + result["last_layer"]) / 2
    result["n"] = facts.defined.sum(axis=1)
    result["n_undefined"] = facts.asked.sum(axis=1) - result["n"]
    result["n_clusters"] = 0
    result[ESTIMATES] = np.nan
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    options = {"level": level, "resamples": resamples, "seed": seed}
    for rows, columns in _same_facts(facts.defined):
        labels = clusters.to_numpy()[columns]
        chosen = (table[np.ix_(rows, columns)] for table in (facts.recovery, facts.distance, facts.baseline))
        result.loc[rows, ESTIMATES] = _estimates(*chosen, clusters=labels, **options)
        result.loc[rows, "n_clusters"] = count_clusters(labels)
    return result[COLUMNS]


def _refuse_impossible(frame: pd.DataFrame) -> None:
    """Raises UserError: what no dissection measures; was the frame changed?"""
    first, last = (frame[name].to_numpy(dtype=float) for name in ("first_layer", "last_layer"))
    odd = {
        "the kind": ~frame["kind"].isin(("activation", "parameters")).to_numpy(),
        "the direction": ~frame["direction"].isin(("before->after", "after->before")).to_numpy(),
        "the window of layers": (first < -1) | (last < first) | (last > MOST_LAYERS),
        "the baseline, a distance,": frame["baseline"].to_numpy(dtype=float) < 0,
        "the position": frame["position"].fillna(0).to_numpy(dtype=float) < 0,
    }
    for what, rows in odd.items():
        if rows.any():
            columns = ["site", "kind", "direction", "first_layer", "last_layer", "position", "baseline"]
            row = ", ".join(f"{name} {value}" for name, value in frame.loc[rows, columns].iloc[0].items())
            raise UserError(f"the frame of a dissection: {what} of some row is none that is measured ({row})")


def _refuse_repeats(group: Int[np.ndarray, " row"], questions: pd.Series) -> None:
    question, names = pd.factorize(questions)
    cells = group.astype(np.int64) * len(names) + question
    if len(np.unique(cells)) < len(cells):
        raise UserError(
            "a fact occurs twice for one site, window and metric: summarise one dissection at a time"
            " (split the frame by before, after or seed first)"
        )


def _by_fact(frame: pd.DataFrame, group: Int[np.ndarray, " row"], names: pd.Index) -> _ByFact:
    shape = (int(group.max()) + 1, len(names))
    cell = group * len(names) + names.get_indexer(pd.Index(facts_of(frame["fact"])))
    defined = frame["defined"].to_numpy(dtype=bool)

    def sums(values: np.ndarray) -> Float[np.ndarray, "group fact"]:
        found = np.bincount(cell[defined], values[defined], shape[0] * shape[1])
        return found.reshape(shape).astype(float)  # of no defined row numpy counts in integers

    count = sums(np.ones(len(frame)))
    recovery, distance, baseline = (
        sums(frame[name].to_numpy(dtype=float)) for name in ("recovery", "distance", "baseline")
    )
    asked = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape) > 0
    return _ByFact(asked, count > 0, recovery / np.maximum(count, 1), distance, baseline)


def _same_facts(defined: Bool[np.ndarray, "group fact"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups that rest on the same facts, with those facts: they can share their resampled facts."""
    patterns, which = np.unique(np.packbits(defined, axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    for index in range(len(patterns)):
        rows = np.flatnonzero(which == index)
        facts = np.flatnonzero(defined[rows[0]])
        if len(facts):
            yield rows, facts


def _estimates(
    recovery: Float[np.ndarray, "group fact"],
    distance: Float[np.ndarray, "group fact"],
    baseline: Float[np.ndarray, "group fact"],
    **options: Any,
) -> Float[np.ndarray, "group 6"]:
    """Mean of ratios, its low and high end; ratio of means, its low and high end."""
    result = np.full((len(recovery), len(ESTIMATES)), np.nan)
    result[:, 0] = recovery.mean(axis=1)
    result[:, 3] = 1 - distance.sum(axis=1) / baseline.sum(axis=1)
    step = max(1, _CELLS_AT_ONCE // max(1, options["resamples"]))
    for start in range(0, len(recovery), step):
        part = slice(start, start + step)
        result[part, 1], result[part, 2] = bootstrap_interval(recovery[part], **options)
        low, high = bootstrap_interval(distance[part], over=baseline[part], **options)
        result[part, 4], result[part, 5] = 1 - high, 1 - low
    return result
