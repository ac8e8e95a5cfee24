"""What a dissection says over facts: two estimators of recovery, each with n and a bootstrap interval.

*Mean of ratios* is the paper's Knowledge Recovery Score (arXiv 2410.06606): the mean over facts of
``1 - distance / baseline``. One fact with a tiny baseline can dominate it. *Ratio of means* is
``1 - sum(distance) / sum(baseline)``: every fact weighs as much as unlearning changed it. Where the
two disagree, a few facts carry the mean of ratios.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from ..errors import UserError
from ..evaluation import bootstrap_interval

KEYS = ["site", "kind", "direction", "first_layer", "last_layer", "position", "metric"]
COLUMNS = [
    *["site", "kind", "direction", "first_layer", "last_layer", "centre", "position", "metric"],
    *["mean_of_ratios", "mean_low", "mean_high", "ratio_of_means", "ratio_low", "ratio_high"],
    *["n", "n_undefined"],
]
NEEDED = ["fact", *KEYS, "distance", "baseline", "recovery", "defined"]
_CELLS_AT_ONCE = 4_000_000  # resampled estimates held in memory at a time: 32 MB


def summarise(frame: pd.DataFrame, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Summarise the rows of a dissection over its facts.

    Args:
        frame: one row per fact × site × window × metric (`Dissection.frame`).
        level: coverage of the percentile bootstrap intervals.
        draws: resamplings of the facts; the same ones for every group with as many defined facts, so that two
            sites or windows are compared on equal draws, whatever else the frame holds.
        seed: of the resampling.

    Returns:
        One row per site × direction × window × position × metric with the columns `COLUMNS`, in the frame's
        order. `centre` is the middle of the window's layers (-1 for sites without layers). `n` counts the
        defined facts that both estimates rest on, `n_undefined` the others, which are never averaged. With
        n = 0 both estimates are NaN; with n < 2 the intervals are (one fact says nothing about spread).

    Raises:
        UserError: columns are missing, or a fact occurs twice in a group (two dissections in one frame).
    """
    if missing := [name for name in NEEDED if name not in frame.columns]:
        raise UserError(f"the frame has no column {', '.join(missing)}: it is not the frame of a dissection")
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, not {level}")
    if draws < 1:
        raise UserError(f"draws must be at least 1, not {draws}")
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    grouped = frame.groupby(KEYS, sort=False, dropna=False, observed=True)
    group = grouped.ngroup().to_numpy()
    fact, names = pd.factorize(frame["fact"])
    _refuse_repeats(group, fact, len(names))

    shape = (int(group.max()) + 1, len(names))
    defined = np.zeros(shape, dtype=bool)
    defined[group, fact] = frame["defined"].to_numpy(dtype=bool)
    distance, baseline, recovery = (np.zeros(shape) for _ in range(3))
    for table, name in ((distance, "distance"), (baseline, "baseline"), (recovery, "recovery")):
        table[group, fact] = frame[name].to_numpy(dtype=float)
        table[~defined] = 0.0  # zero weighs nothing in the sums; undefined values may be NaN

    result = frame.loc[~pd.Series(group, index=frame.index).duplicated(), KEYS].reset_index(drop=True)
    result["centre"] = (result["first_layer"] + result["last_layer"]) / 2
    result["n"] = defined.sum(axis=1)
    result["n_undefined"] = np.bincount(group) - result["n"]
    for name in COLUMNS[8:14]:
        result[name] = np.nan
    for rows, facts in _same_facts(defined):
        columns = _estimates(
            recovery[np.ix_(rows, facts)],
            distance[np.ix_(rows, facts)],
            baseline[np.ix_(rows, facts)],
            level=level,
            samples=draws,
            seed=seed,
        )
        result.loc[rows, COLUMNS[8:14]] = columns
    return result[COLUMNS]


def _refuse_repeats(group: np.ndarray, fact: np.ndarray, n_facts: int) -> None:
    cells = group.astype(np.int64) * n_facts + fact
    if len(np.unique(cells)) < len(cells):
        raise UserError(
            "a fact occurs twice for one site, window and metric: summarise one dissection at a time"
            " (split the frame by before, after or seed first)"
        )


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
    **resampling: Any,
) -> Float[np.ndarray, "group 6"]:
    """Mean of ratios, its low and high end; ratio of means, its low and high end."""
    result = np.full((len(recovery), 6), np.nan)
    result[:, 0] = recovery.mean(axis=1)
    result[:, 3] = 1 - distance.sum(axis=1) / baseline.sum(axis=1)
    if recovery.shape[1] < 2:
        return result
    step = max(1, _CELLS_AT_ONCE // resampling["samples"])
    for start in range(0, len(recovery), step):
        part = slice(start, start + step)
        result[part, 1], result[part, 2] = bootstrap_interval(recovery[part], **resampling)
        low, high = bootstrap_interval(distance[part], over=baseline[part], **resampling)
        result[part, 4], result[part, 5] = 1 - high, 1 - low
    return result
