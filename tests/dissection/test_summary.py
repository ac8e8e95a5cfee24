"""The summary against a slow oracle, and what it does with undefined rows."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from mechunlearn.dissection.summary import COLUMNS, summarise_recovery
from mechunlearn.errors import UserError
from mechunlearn.evaluation import bootstrap_interval

from ..reporting import synthetic

KEYS = ["site", "kind", "direction", "first_layer", "last_layer", "metric"]


def small(distances: list[float], baselines: list[float], defined: list[bool] | None = None) -> pd.DataFrame:
    defined = [True] * len(distances) if defined is None else defined
    return pd.DataFrame(
        {
            "fact": [f"f{i}" for i in range(len(distances))],
            "site": "value_vectors",
            "kind": "parameters",
            "direction": "before->after",
            "first_layer": 1,
            "last_layer": 3,
            "position": pd.array([pd.NA] * len(distances), dtype="Int64"),
            "metric": "mse",
            "distance": distances,
            "baseline": baselines,
            "recovery": [1 - d / b if ok else np.nan for d, b, ok in zip(distances, baselines, defined, strict=True)],
            "defined": defined,
        }
    )


def oracle(rows: pd.DataFrame, resamples: int, seed: int) -> tuple[float, float, float, float]:
    """Both estimates and the interval of each, one resample at a time (the picks of numpy's own generator)."""
    rows = rows[rows["defined"]].sort_values("fact")
    n = len(rows)
    picks = np.random.default_rng(seed).integers(n, size=(resamples, n))
    means = [rows["recovery"].iloc[pick].mean() for pick in picks]
    ratios = [1 - rows["distance"].iloc[pick].sum() / rows["baseline"].iloc[pick].sum() for pick in picks]
    return (*np.percentile(means, [2.5, 97.5]), *np.percentile(ratios, [2.5, 97.5]))


def test_agrees_with_a_slow_oracle() -> None:
    frame = synthetic.frame(11, 4)
    frame = frame[frame["site"].isin(["mlp_coefficients", "embedding"]) & frame["metric"].isin(["mse", "kl"])]
    summary = summarise_recovery(frame, resamples=60, seed=5)
    assert list(summary.columns) == COLUMNS
    assert len(summary) == frame.groupby(KEYS).ngroups
    for row in summary.itertuples():
        rows = frame[np.logical_and.reduce([frame[key] == getattr(row, key) for key in KEYS])]
        good = rows[rows["defined"]]
        assert row.n == 9 and row.n_undefined == 2
        assert row.mean_of_ratios == pytest.approx(good["recovery"].mean())
        assert row.ratio_of_means == pytest.approx(1 - good["distance"].sum() / good["baseline"].sum())
        measured = (row.mean_low, row.mean_high, row.ratio_low, row.ratio_high)
        assert measured == pytest.approx(oracle(rows, 60, 5))
        assert row.centre == (row.first_layer + row.last_layer) / 2


def test_two_estimators_differ_where_one_fact_dominates() -> None:
    row = summarise_recovery(small([1.0, 0.5, 100.0], [10.0, 10.0, 1.0])).iloc[0]
    assert row.mean_of_ratios == pytest.approx((0.9 + 0.95 - 99) / 3)
    assert row.ratio_of_means == pytest.approx(1 - 101.5 / 21)


def test_undefined_rows_are_counted_and_never_averaged() -> None:
    frame = small([1.0, 7.0, 3.0], [4.0, 1e-30, 4.0], [True, False, True])
    frame.loc[1, "distance"] = np.nan
    row = summarise_recovery(frame).iloc[0]
    assert (row.n, row.n_undefined) == (2, 1)
    assert row.mean_of_ratios == pytest.approx(0.5) and row.ratio_of_means == pytest.approx(0.5)
    assert 0.25 <= row.mean_low <= row.mean_high <= 0.75


def test_a_group_without_a_defined_row_is_there_and_empty() -> None:
    row = summarise_recovery(small([1.0, 2.0], [0.0, 0.0], [False, False])).iloc[0]
    assert (row.n, row.n_undefined) == (0, 2)
    assert row[["mean_of_ratios", "mean_low", "mean_high", "ratio_of_means", "ratio_low", "ratio_high"]].isna().all()


def test_one_fact_has_an_estimate_but_no_interval() -> None:
    row = summarise_recovery(small([1.0], [4.0])).iloc[0]
    assert row.mean_of_ratios == 0.75 and row.ratio_of_means == 0.75
    assert np.isnan(row.mean_low) and np.isnan(row.ratio_high)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 100), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 3),
)
def test_bounds_and_invariances(rows: list[tuple[float, float, bool]], seed: int) -> None:
    frame = small(*map(list, zip(*rows, strict=True)))  # pyright: ignore[reportArgumentType]
    row = summarise_recovery(frame, resamples=200, seed=seed).iloc[0]
    good = [1 - d / b for d, b, ok in rows if ok]
    assert row.n == len(good) and row.n + row.n_undefined == len(rows)
    if len(good) >= 2:
        for name in ("mean_of_ratios", "mean_low", "mean_high", "ratio_of_means", "ratio_low", "ratio_high"):
            assert min(good) - 1e-6 <= row[name] <= max(good) + 1e-6
        assert row.mean_low <= row.mean_high and row.ratio_low <= row.ratio_high
        scaled = frame.assign(distance=frame["distance"] * 3, baseline=frame["baseline"] * 3)
        assert summarise_recovery(scaled, resamples=200, seed=seed).iloc[0].ratio_low == pytest.approx(row.ratio_low)


def test_other_groups_do_not_change_a_group() -> None:
    frame = synthetic.frame(10)
    alone = summarise_recovery(frame[frame["site"] == "mlp_keys"])
    among = summarise_recovery(frame)
    among = among[among["site"] == "mlp_keys"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)


def asked_often(seed: int) -> pd.DataFrame:
    """One window; five facts of two subjects and one without, each asked one to three times, some undefined."""
    draw = np.random.default_rng(seed)
    questions = [f"{fact}#h{place}" for fact in range(5) for place in range(1 + fact % 3)]
    frame = small(draw.uniform(0, 2, len(questions)).tolist(), draw.uniform(1, 3, len(questions)).tolist())
    frame = frame.assign(question=questions, fact=[question[0] for question in questions])
    frame["subject"] = frame["fact"].map(dict(zip("01234", ["x", "x", "y", "y", None], strict=True)))
    hidden = frame["question"].isin(["0#h0", "2#h1"])
    return frame.assign(defined=~hidden, recovery=frame["recovery"].mask(hidden))


@pytest.mark.parametrize("seed", range(3))
def test_questions_of_one_fact_are_taken_together_and_subjects_resampled(seed: int) -> None:
    frame = asked_often(seed)
    row = summarise_recovery(frame, seed=seed).iloc[0]
    good = frame[frame["defined"]]
    facts = good.groupby("fact").agg({"recovery": "mean", "distance": "sum", "baseline": "sum"})
    assert (row.n, row.n_undefined, row.n_clusters) == (4, 1, 3) and list(facts.index) == [*"1234"]
    assert row.mean_of_ratios == pytest.approx(facts["recovery"].mean())
    assert row.ratio_of_means == pytest.approx(1 - facts["distance"].sum() / facts["baseline"].sum())
    subjects = ["x", "y", "y", None]
    expected = bootstrap_interval(facts["recovery"], clusters=subjects, seed=seed)
    assert (row.mean_low, row.mean_high) == pytest.approx(expected)
    low, high = bootstrap_interval(facts["distance"], facts["baseline"], clusters=subjects, seed=seed)
    assert (row.ratio_low, row.ratio_high) == pytest.approx((1 - high, 1 - low))
    mixed = summarise_recovery(frame.sample(frac=1, random_state=seed), seed=seed)
    assert mixed.iloc[0][COLUMNS[8:]].tolist() == pytest.approx(row[COLUMNS[8:]].tolist())
    older = frame.assign(fact=frame["question"]).drop(columns=["question", "subject"])  # a frame of an older version
    alone = summarise_recovery(older, seed=seed).iloc[0]
    assert (alone.n, alone.n_clusters) == (4, 4) and alone.mean_of_ratios == pytest.approx(row.mean_of_ratios)
    pd.testing.assert_series_equal(alone, summarise_recovery(frame, cluster="fact", seed=seed).iloc[0])


def test_one_subject_has_an_estimate_but_no_interval() -> None:
    row = summarise_recovery(small([1.0, 2.0], [4.0, 4.0]).assign(subject="x")).iloc[0]
    assert (row.n, row.n_clusters) == (2, 1) and row.mean_of_ratios == 0.625
    assert np.isnan(row[["mean_low", "mean_high", "ratio_low", "ratio_high"]].astype(float)).all()


def test_maps_are_summarised_by_position() -> None:
    summary = summarise_recovery(synthetic.frame(5, 3, positions=True))
    maps = summary[summary["position"].notna()]
    assert sorted(maps["position"].unique()) == list(range(9))
    assert (maps["n"] == 4).all()
    assert summary["position"].dtype == "Int64"


def test_a_fact_twice_in_a_group_is_refused() -> None:
    frame = synthetic.frame(3, 3)
    with pytest.raises(UserError, match="twice"):
        summarise_recovery(pd.concat([frame, frame]))


def test_other_frames_are_refused_and_an_empty_one_is_empty() -> None:
    with pytest.raises(UserError, match="baseline, recovery"):
        summarise_recovery(synthetic.frame(3, 3).drop(columns=["baseline", "recovery"]))
    assert summarise_recovery(synthetic.frame(3, 3).iloc[:0]).empty


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_senseless_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        summarise_recovery(synthetic.frame(3, 3), **options)  # pyright: ignore[reportArgumentType]


def test_all_groups_at_once_are_much_faster_than_one_by_one() -> None:
    part = small([1.0] * 300, [2.0] * 300)
    blocks = [
        part.assign(site=str(site), first_layer=layer, last_layer=layer, metric=metric)
        for site in range(8)
        for layer in range(20)
        for metric in "abcd"
    ]
    frame = pd.concat(blocks, ignore_index=True)
    start = time.process_time()
    assert len(summarise_recovery(frame)) == 640
    all_at_once = time.process_time() - start
    oracle(part, resamples=100, seed=0)
    one_by_one = 640 * 20 * (time.process_time() - start - all_at_once)  # 640 groups of 2,000 resamples
    assert one_by_one > 50 * all_at_once
