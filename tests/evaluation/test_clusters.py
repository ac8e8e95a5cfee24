"""Planted worlds of eight facts a subject: intervals over subjects cover the truth, those over facts do not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from mechunlearn.errors import UserError
from mechunlearn.evaluation import (
    bootstrap_interval,
    clusters_of,
    count_clusters,
    resampled,
    share_difference_interval,
    share_interval,
    summarise_measures,
)
from mechunlearn.facts import fact_of

WORLDS, SUBJECTS, FACTS = 4000, 60, 8  # a coverage of 0.95 is seen as 0.943 to 0.957
CLUSTERS = np.repeat([f"subject {number:02d}" for number in range(SUBJECTS)], FACTS)
SHARE, CORRELATION = 0.3, 0.3


def world(*, share: float = SHARE, seed: int = 0) -> np.ndarray:
    """Which facts are right: subjects differ in how likely theirs are, by a beta distribution."""
    draw = np.random.default_rng(seed)
    strength = 1 / CORRELATION - 1
    likely = draw.beta(share * strength, (1 - share) * strength, (WORLDS, SUBJECTS, 1))
    return (draw.random((WORLDS, SUBJECTS, FACTS)) < likely).reshape(WORLDS, -1).astype(float)


def coverage(edges, truth: float) -> float:
    low, high = edges
    return float(np.mean((low <= truth) & (truth <= high)))


def recoveries(seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return 0.6 + (
        0.2 * draw.standard_normal((WORLDS, SUBJECTS, 1)) + 0.2 * draw.standard_normal((WORLDS, SUBJECTS, FACTS))
    ).reshape(WORLDS, -1)


def test_a_mean_is_covered_over_subjects_alone():
    values = recoveries()
    assert 0.93 <= coverage(bootstrap_interval(values, clusters=CLUSTERS), 0.6) <= 0.97
    assert coverage(bootstrap_interval(values), 0.6) < 0.75


def test_a_ratio_of_means_is_covered_over_subjects_alone():
    below = np.random.default_rng(2).gamma(4.0, 1.0, (WORLDS, SUBJECTS, 1)).repeat(FACTS, axis=2).reshape(WORLDS, -1)
    above = below * recoveries()
    assert 0.93 <= coverage(bootstrap_interval(above, below, clusters=CLUSTERS), 0.6) <= 0.97
    assert coverage(bootstrap_interval(above, below), 0.6) < 0.75


@pytest.mark.parametrize("share", [0.1, SHARE, 0.5])
def test_a_share_is_covered_over_subjects_alone(share):
    right = world(share=share)
    assert 0.93 <= coverage(share_interval(right, clusters=CLUSTERS), share) <= 0.97
    assert coverage(share_interval(right), share) < 0.8
    assert coverage(bootstrap_interval(right), share) < 0.8


def test_a_paired_difference_of_shares_is_covered_over_subjects_alone():
    """The second model answers what the first does, and some of the rest, more of it for some subjects."""
    draw = np.random.default_rng(3)
    first = world()
    relearned = draw.beta(0.5, 1.5, (WORLDS, SUBJECTS, 1)).repeat(FACTS, axis=2).reshape(WORLDS, -1)
    second = np.maximum(first, draw.random(first.shape) < relearned)
    truth = (1 - SHARE) * 0.25
    assert 0.93 <= coverage(share_difference_interval(first, second, clusters=CLUSTERS), truth) <= 0.97
    assert coverage(share_difference_interval(first, second), truth) < 0.9
    assert coverage(bootstrap_interval(second - first), truth) < 0.9


def each_by_itself(values, over=None, resamples=2000, seed=0):
    """The interval as it was before there were clusters: means of resampled facts."""
    n = len(values)
    picks = np.random.default_rng(seed).integers(n, size=(resamples, n))
    statistic = np.asarray(values)[picks].mean(axis=1)
    if over is not None:
        statistic = statistic / np.asarray(over)[picks].mean(axis=1)
    return np.quantile(statistic, [0.025, 0.975])


@given(st.integers(2, 60), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_where_every_fact_is_a_cluster_nothing_changes(n, seed):
    values, over = np.random.default_rng(seed).normal(size=n), np.random.default_rng(seed).uniform(1, 2, n)
    names = [f"subject {number:03d}" for number in range(n)]
    for clusters in (names, [None] * n, None):
        found = bootstrap_interval(values, clusters=clusters, seed=seed)
        np.testing.assert_allclose(found, each_by_itself(values, seed=seed), atol=1e-12, rtol=0)
        found = bootstrap_interval(values, over, clusters=clusters, seed=seed)
        np.testing.assert_allclose(found, each_by_itself(values, over, seed=seed), atol=1e-12, rtol=0)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_copies_of_a_fact_tell_no_more_than_the_fact(values, copies):
    names = [f"{number:02d}" for number in range(len(values))]
    many = bootstrap_interval(np.repeat(values, copies), clusters=np.repeat(names, copies))
    assert many == pytest.approx(bootstrap_interval(values, clusters=names), abs=1e-9)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=200))
@settings(max_examples=50, deadline=None)
def test_a_share_of_facts_by_themselves_is_wilsons(outcomes):
    expected = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci(method="wilson")
    assert share_interval(outcomes) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert share_interval(outcomes, clusters=range(len(outcomes))) == share_interval(outcomes)


def newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Method 10 as the paper writes it, from the counts of a two by two table; first − second."""
    n = both + first + second + neither
    one, other = both + first, both + second
    (low_one, high_one), (low_other, high_other) = (
        stats.binomtest(count, n).proportion_ci(method="wilson") for count in (one, other)
    )
    apart = both * neither - first * second
    apart = apart - n / 2 if apart > n / 2 else min(apart, 0)
    margins = one * (n - one) * other * (n - other)
    phi = apart / np.sqrt(margins) if margins else 0.0
    d_low, d_high = one / n - low_one, high_one - one / n
    e_low, e_high = other / n - low_other, high_other - other / n
    difference = (one - other) / n
    return (
        difference - np.sqrt(d_low**2 - 2 * phi * d_low * e_high + e_high**2),
        difference + np.sqrt(d_high**2 - 2 * phi * d_high * e_low + e_low**2),
    )


def outcomes_of(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


@given(st.tuples(*[st.integers(0, 15)] * 4))
@settings(max_examples=60, deadline=None)
def test_a_difference_of_facts_by_themselves_is_newcombes(counts):
    if sum(counts):
        first, second = outcomes_of(*counts)
        assert share_difference_interval(second, first) == pytest.approx(newcombe(*counts), abs=1e-9)


def test_published_examples():
    first, second = outcomes_of(14, 5, 0, 22)  # Altman et al., Statistics with Confidence (2000), page 52
    assert share_difference_interval(second, first) == pytest.approx((0.011, 0.226), abs=6e-4)
    first, second = outcomes_of(1, 1, 7, 12)  # Fagerland et al., Stat Med 33 (2014) 2850, airway hyper-responsiveness
    assert share_difference_interval(second, first) == pytest.approx((-0.507, -0.026), abs=6e-4)


def test_all_or_none_is_not_certain():
    assert share_interval([0] * 20) == pytest.approx((0, 0.161), abs=1e-3)
    assert share_interval([1] * 20) == pytest.approx((0.839, 1), abs=1e-3)
    low, high = share_difference_interval([0] * 20, [0] * 20)
    assert (low, high) == pytest.approx((-0.161, 0.161), abs=1e-3)
    # Where nothing differs, nobody knows how alike a subject's facts are: every subject counts as one outcome.
    assert share_interval([0] * 20, clusters=np.repeat(range(4), 5)) == share_interval([0] * 4)


def test_one_subject_counts_as_one_outcome():
    for right in (0, 1):
        assert share_interval([right] * 7, clusters=["a"] * 7) == share_interval([right])
    low, high = share_interval([1, 1, 0, 0], clusters=["a"] * 4)
    assert high - low > 0.85


@st.composite
def shares_in_clusters(draw):
    clusters = draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=30))
    outcome = st.sampled_from([0.0, 0.5, 1.0])
    first, second = (draw(st.lists(outcome, min_size=len(clusters), max_size=len(clusters))) for _ in range(2))
    return clusters, first, second, draw(st.permutations(range(len(clusters))))


@given(shares_in_clusters())
@settings(max_examples=100, deadline=None)
def test_bounds_hold_the_value_in_any_order(case):
    clusters, first, second, order = case
    low, high = share_interval(first, clusters=clusters)
    assert 0 <= low <= np.mean(first) <= high <= 1 and low < high
    wide = share_difference_interval(first, second, clusters=clusters)
    difference = np.mean(second) - np.mean(first)
    assert -1 <= wide[0] <= difference <= wide[1] <= 1
    back = share_difference_interval(second, first, clusters=clusters)
    assert (-back[1], -back[0]) == pytest.approx(wide, abs=1e-9)
    by_order = [[values[place] for place in order] for values in (clusters, first, second)]
    assert share_interval(by_order[1], clusters=by_order[0]) == pytest.approx((low, high), abs=1e-9)
    assert share_difference_interval(*by_order[1:], clusters=by_order[0]) == pytest.approx(wide, abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_subjects_that_are_all_right_or_all_wrong_make_it_wider(subjects):
    outcomes = [float(right) for right, count in subjects for _ in range(count)]
    clusters = [number for number, (_, count) in enumerate(subjects) for _ in range(count)]
    (low, high), (alone_low, alone_high) = share_interval(outcomes, clusters=clusters), share_interval(outcomes)
    assert low <= alone_low + 1e-12 and alone_high <= high + 1e-12


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_resamples_do_not_depend_on_the_order_of_facts(order):
    values, subjects = np.arange(12.0) ** 2, np.array([*"aabbbcddefff"])
    found = bootstrap_interval(values[list(order)], clusters=subjects[list(order)])
    assert found == pytest.approx(bootstrap_interval(values, clusters=subjects), abs=1e-9)


def test_facts_without_a_subject_are_clusters_of_their_own():
    subjects = ["x", None, "x", float("nan"), None]
    assert count_clusters(subjects) == 4
    named = bootstrap_interval([1, 5, 2, 7, 9], clusters=subjects)
    assert named == bootstrap_interval([1, 5, 2, 7, 9], clusters=["x", "y1", "x", "y2", "y3"])


def test_what_is_no_share_is_refused():
    with pytest.raises(UserError, match="between 0"):
        share_interval([0.0, 1.5])
    with pytest.raises(UserError, match="the same facts"):
        share_difference_interval([0, 1], [0])
    with pytest.raises(UserError, match="level"):
        share_interval([0, 1], level=95.0)


def frame() -> pd.DataFrame:
    """Six facts of two subjects and one without, each asked twice."""
    facts = [f"{number}#h{place}" for number in range(7) for place in (0, 1)]
    subjects = [("x", "y", None)[number // 3] for number in range(7) for _ in (0, 1)]
    right = [float(number % 2 or place) for number in range(7) for place in (0, 1)]
    values = {"recall": right, "rank": np.arange(14.0)}
    asked = {"question": facts, "fact": [fact_of(name) for name in facts]}
    return pd.DataFrame({**asked, "subject": subjects, "role": "forget", **values})


def test_measures_are_summed_up_over_subjects():
    table = summarise_measures(frame(), seed=1).set_index("measure")
    assert list(table["n"]) == [7, 7] and list(table["n_clusters"]) == [3, 3]
    recall, rank = [0.5, 1, 0.5, 1, 0.5, 1, 0.5], np.arange(0.5, 14, 2)
    subjects = [*"xxxyyy", None]
    assert tuple(table.loc["recall", ["value", "low", "high"]]) == pytest.approx(
        (np.mean(recall), *share_interval(recall, clusters=subjects))
    )
    assert tuple(table.loc["rank", ["value", "low", "high"]]) == pytest.approx(
        (np.mean(rank), *bootstrap_interval(rank, clusters=subjects, seed=1))
    )
    mixed = summarise_measures(frame().sample(frac=1, random_state=1), seed=1).set_index("measure")
    pd.testing.assert_frame_equal(mixed, table)
    alone = summarise_measures(frame(), cluster="fact", seed=1).set_index("measure")
    assert list(alone["n_clusters"]) == [7, 7]
    assert tuple(alone.loc["rank", ["low", "high"]]) == pytest.approx(bootstrap_interval(rank, seed=1))


def test_labels_of_facts():
    labels = clusters_of(frame(), "subject", "question")
    assert list(labels.index) == [*"0123456"] and labels.tolist() == [*"xxxyyy", None]
    assert clusters_of(frame().drop(columns="subject"), "subject", "question").isna().all()
    assert clusters_of(frame(), "fact", "question").isna().all()
    with pytest.raises(UserError, match="no such column"):
        clusters_of(frame(), "colour", "question")
    with pytest.raises(UserError, match="the fact '0' has several"):
        clusters_of(frame(), "rank", "question")


def test_what_was_resampled_is_said():
    def said(*counts: tuple[int, int]) -> str:
        return resampled(pd.DataFrame(counts, columns=["n", "n_clusters"]))

    assert said((8, 8)) == "facts" and said((8, 2)) == "2 subjects" and said((8, 1)) == "1 subject"
    assert said((8, 2), (8, 8), (9, 3)) == "2 to 3 subjects"
