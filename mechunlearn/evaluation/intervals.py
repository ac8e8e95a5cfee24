"""Bootstrap intervals over facts: how far a mean would move with other facts of the same kind."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..errors import UserError


def bootstrap_interval(
    values: ArrayLike,
    over: ArrayLike | None = None,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """The percentile bootstrap interval of a mean, or of a ratio of means, over the last axis.

    All leading axes are resampled alike, and calls with the same number of facts and the same seed share
    their resamples, so intervals of many quantities of the same facts are cheap and comparable.

    Args:
        values: [..., fact], one value a fact.
        over: None for mean(values); else of the same shape, for mean(values) / mean(over).
        level: the share of resampled statistics that lies inside.
        samples: the number of resamples.
        seed: decides the resamples.

    Returns:
        low, high: floats for one axis, else arrays of the leading shape. A single fact gives the point twice.

    Raises:
        UserError: no value; one that is not finite; shapes that differ; a mean of `over` that is zero.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    top = _checked("values", values)
    counts = _resamples(top.shape[-1], samples, seed)
    statistic = top @ counts
    if over is not None:
        bottom = _checked("over", over)
        if bottom.shape != top.shape:
            raise UserError(f"values have the shape {top.shape}, what they are taken over {bottom.shape}")
        below = bottom @ counts
        if not below.all():
            raise UserError("the mean that the ratio is taken over is zero in a resample")
        statistic = statistic / below
    tail = (1 - level) / 2
    low, high = np.quantile(statistic, [tail, 1 - tail], axis=-1)
    return (float(low), float(high)) if top.ndim == 1 else (low, high)


def _checked(name: str, values: ArrayLike) -> Float[np.ndarray, "*group fact"]:
    array = np.asarray(values, dtype=np.float64)
    if not array.shape or not array.shape[-1]:
        raise UserError(f"an interval needs at least one of {name}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite; take undefined ones out (and count them) before")
    return array


@lru_cache(maxsize=8)
def _resamples(n: int, samples: int, seed: int) -> Float[np.ndarray, "n samples"]:
    """How much each fact weighs in each resample: the share of n draws with replacement that fall on it."""
    drawn = np.random.default_rng(seed).integers(n, size=(samples, n))
    drawn += n * np.arange(samples)[:, None]
    return np.bincount(drawn.ravel(), minlength=samples * n).reshape(samples, n).T / n
