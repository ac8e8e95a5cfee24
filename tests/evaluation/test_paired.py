"""Paired comparisons: the same facts, whatever their order."""

import numpy as np
import pandas as pd
import pytest

from mechunlearn.errors import UserError
from mechunlearn.evaluation import (
    bootstrap_interval,
    paired,
    share_difference_interval,
    share_interval,
    summarise_measures,
)

RNG = np.random.default_rng(3)
N = 40


def frame(rank, **more) -> pd.DataFrame:
    labels = {name: [f"f{i:02d}" for i in range(N)] for name in ("question", "fact")}
    return pd.DataFrame({**labels, "role": ["forget", "near"] * (N // 2), "rank": rank, **more})


def test_the_difference_is_taken_fact_by_fact():
    hard = RNG.normal(0, 10, N)
    first, second = frame(hard, recall=1.0), frame(hard + RNG.normal(1, 0.1, N), bleu=0.5)
    shuffled = second.sample(frac=1, random_state=0)
    table = paired(first, shuffled, seed=2)
    assert list(table.columns) == ["role", "measure", "first", "second", "difference", "low", "high", "n", "n_clusters"]
    assert list(table.measure) == ["rank", "rank"] and list(table.n) == [N // 2] * 2
    row = table.set_index("role").loc["near"]
    apart = (second["rank"] - first["rank"])[1::2].to_numpy()
    assert row["difference"] == pytest.approx(apart.mean()) == row["second"] - row["first"]
    assert (row["low"], row["high"]) == pytest.approx(bootstrap_interval(apart, seed=2))
    alone = summarise_measures(first.drop(columns="recall")).set_index("role").loc["near"]
    assert row["high"] - row["low"] < 0.1 < alone["high"] - alone["low"]


def test_a_model_against_itself_is_zero():
    table = paired(*[frame(RNG.random(N))] * 2)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)


def test_of_shares_even_a_model_against_itself_is_not_known_exactly():
    """Whether 20 facts are right tells little of the next one: Newcombe's interval, not that of differences of 0."""
    right = frame(1.0, recall=[1.0, 0.0, 0.0, 0.0] * (N // 4)).drop(columns="rank")
    table = paired(right, right).set_index("role")
    assert (table["difference"] == 0).all() and (table["low"] < -0.05).all() and (table["high"] > 0.05).all()
    forget = right["recall"][right["role"] == "forget"]
    assert tuple(table.loc["forget", ["low", "high"]]) == pytest.approx(share_difference_interval(forget, forget))
    assert table.loc["near", "high"] == pytest.approx(share_interval([0] * (N // 2))[1])


def test_facts_of_one_subject_are_resampled_together():
    hard = np.repeat(RNG.normal(0, 1, N // 4), 4)
    first, second = frame(0.0, subject=np.repeat(np.arange(N // 4), 4)), frame(hard)
    table = paired(first, second, by=("subject",))
    assert (table["n_clusters"] == 1).all() and table["low"].isna().all()
    by_subject, by_fact = (paired(first, second, cluster=one).set_index("role") for one in ("subject", "fact"))
    assert (by_subject["n_clusters"] == N // 4).all() and (by_fact["n_clusters"] == N // 2).all()
    width = [(table["high"] - table["low"]).to_numpy() for table in (by_subject, by_fact)]
    assert (width[0] > 1.2 * width[1]).all()


def test_a_fact_counts_where_both_have_a_value():
    first, second = frame(1.0), frame(0.0)
    first.loc[0, "rank"] = second.loc[[0, 2], "rank"] = np.nan
    first["bleu"], second["bleu"] = np.nan, 1.0
    table = paired(first, second).set_index(["role", "measure"])
    assert table.n.to_dict() == {("forget", "rank"): N // 2 - 2, ("near", "rank"): N // 2}
    assert set(table.difference) == {-1}


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(UserError, match="only one has 'f09'"):
        paired(frame(0.0), frame(0.0).drop(index=9))
    with pytest.raises(UserError, match="question 'f00' is there twice"):
        paired(frame(0.0), pd.concat([frame(0.0)] * 2))
    with pytest.raises(UserError, match="no measure in common"):
        paired(frame(0.0), frame(0.0).drop(columns="rank"))
    with pytest.raises(UserError, match="cannot be grouped by"):
        paired(frame(0.0), frame(0.0), by=("colour",))
