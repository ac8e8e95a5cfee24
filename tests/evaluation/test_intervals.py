"""Intervals cover the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.evaluation import bootstrap_interval, paired, summarise_measures

RNG = np.random.default_rng(20)
WORLDS, FACTS = 3000, 120


def coverage(low, high, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize(
    ("values", "truth"),
    [
        (RNG.normal(3.0, 2.0, (WORLDS, FACTS)), 3.0),
        ((RNG.random((WORLDS, FACTS)) < 0.7).astype(float), 0.7),
        (RNG.gamma(4.0, 1.0, (WORLDS, FACTS)), 4.0),
    ],
    ids=["normal", "yes or no", "skewed"],
)
def test_a_mean_is_covered(values, truth):
    low, high = bootstrap_interval(values)
    assert 0.93 <= coverage(low, high, truth) <= 0.97
    low, high = bootstrap_interval(values, level=0.8)
    assert 0.77 <= coverage(low, high, truth) <= 0.83


def test_a_ratio_of_means_is_covered():
    below = RNG.gamma(4.0, 1.0, (WORLDS, FACTS))
    above = below * RNG.uniform(0.0, 1.0, (WORLDS, FACTS)) + RNG.normal(0, 0.3, (WORLDS, FACTS))
    low, high = bootstrap_interval(above, below)
    assert 0.93 <= coverage(low, high, 0.5) <= 0.97


def test_groups_at_once_are_the_groups_one_by_one():
    values, below = RNG.normal(size=(3, 2, 17)), RNG.uniform(1, 2, size=(3, 2, 17))
    low, high = bootstrap_interval(values, below, seed=5)
    assert low.shape == high.shape == (3, 2)
    alone = bootstrap_interval(values[2, 1], below[2, 1], seed=5)
    assert alone == pytest.approx((low[2, 1], high[2, 1]))
    assert all(isinstance(edge, float) for edge in alone)


def test_the_seed_decides():
    values = RNG.normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_resampling_is_with_replacement_over_facts():
    """Against a plain loop: the same quantiles, up to the noise of resampling."""
    values = RNG.normal(size=25)
    generator = np.random.default_rng(7)
    means = [generator.choice(values, 25).mean() for _ in range(20_000)]
    assert bootstrap_interval(values, resamples=20_000) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


@given(st.floats(-1e6, 1e6), st.integers(2, 40))
def test_no_spread_no_width(value, n):
    assert bootstrap_interval([value] * n) == pytest.approx((value, value))


def test_one_cluster_says_nothing_about_spread():
    assert np.isnan(bootstrap_interval([0.25])).all()
    assert np.isnan(bootstrap_interval([1.0], [4.0])).all()
    assert np.isnan(bootstrap_interval([1.0, 2.0, 7.0], clusters=["a", "a", "a"])).all()
    low, high = bootstrap_interval(np.ones((3, 4)), clusters=["a"] * 4)
    assert low.shape == (3,) and np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("values", "over", "message"),
    [
        ([], None, "at least one"),
        ([1.0, float("nan")], None, "values must be finite"),
        ([1.0, 2.0], [1.0, float("inf")], "over must be finite"),
        ([1.0, 2.0], [1.0], "shape"),
        ([1.0, 2.0], [0.0, 0.0], "zero in a resample"),
    ],
)
def test_what_cannot_be_averaged_is_refused(values, over, message):
    with pytest.raises(UserError, match=message):
        bootstrap_interval(values, over)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "level must lie between"),
        ({"level": 0.0}, "level must lie between"),
        ({"resamples": 0}, "resamples must be at least 1"),
        ({"clusters": ["a"]}, "2 facts, and clusters for 1"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        bootstrap_interval([1.0, 2.0], **options)


@pytest.mark.parametrize("subjects", [True, False])
def test_the_order_of_facts_moves_no_bound(subjects):
    """Resamples go by the facts' names: a frame that is read in another order says the same, in every summary."""
    draw = np.random.default_rng(3)
    n = 40
    frame = pd.DataFrame({
        "question": [f"f{n}#h0" for n in range(n)], "fact": [f"f{n}" for n in range(n)],
        "subject": pd.array([f"s{n // 3}" if subjects else None for n in range(n)], dtype="string"),
        "role": "forget", "recall": (draw.random(n) < 0.4).astype(float), "answer_logprob": draw.normal(size=n),
    })  # fmt: skip
    other = frame.assign(answer_logprob=draw.normal(size=n))
    texts = pd.DataFrame({"tokens": pd.Series(dtype="int64")})
    mixed = draw.permutation(n)
    for summarise in (
        lambda order: summarise_measures(frame.iloc[order], texts),
        lambda order: paired(frame.iloc[order], other.iloc[order[::-1]]),
    ):
        pd.testing.assert_frame_equal(summarise(np.arange(n)), summarise(mixed), rtol=0, atol=1e-12)
