"""Paired comparisons: the same facts, whatever their order."""

import numpy as np
import pandas as pd
import pytest

from mechunlearn.errors import UserError
from mechunlearn.evaluation import bootstrap_interval, paired, summarise_measures

RNG = np.random.default_rng(3)
N = 40


def frame(recall, **more) -> pd.DataFrame:
    labels = {"id": [f"f{i}" for i in range(N)], "role": ["forget", "near"] * (N // 2)}
    return pd.DataFrame({**labels, "recall": recall, **more})


def test_the_difference_is_taken_fact_by_fact():
    hard = RNG.normal(0, 10, N)
    first, second = frame(hard, rank=1.0), frame(hard + RNG.normal(1, 0.1, N), bleu=0.5)
    shuffled = second.sample(frac=1, random_state=0)
    table = paired(first, shuffled, seed=2)
    assert list(table.columns) == ["role", "measure", "first", "second", "difference", "low", "high", "n"]
    assert list(table.measure) == ["recall", "recall"] and list(table.n) == [N // 2] * 2
    row = table.set_index("role").loc["near"]
    apart = (second.recall - first.recall)[1::2].to_numpy()
    assert row["difference"] == pytest.approx(apart.mean()) == row["second"] - row["first"]
    assert (row["low"], row["high"]) == pytest.approx(bootstrap_interval(apart, seed=2))
    alone = summarise_measures(first.drop(columns="rank")).set_index("role").loc["near"]
    assert row["high"] - row["low"] < 0.1 < alone["high"] - alone["low"]


def test_a_model_against_itself_is_zero():
    table = paired(*[frame(RNG.random(N))] * 2)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)


def test_a_fact_counts_where_both_have_a_value():
    first, second = frame(1.0), frame(0.0)
    first.loc[0, "recall"] = second.loc[[0, 2], "recall"] = np.nan
    first["bleu"], second["bleu"] = np.nan, 1.0
    table = paired(first, second).set_index(["role", "measure"])
    assert table.n.to_dict() == {("forget", "recall"): N // 2 - 2, ("near", "recall"): N // 2}
    assert set(table.difference) == {-1}


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(UserError, match="only one has 'f9'"):
        paired(frame(0.0), frame(0.0).drop(index=9))
    with pytest.raises(UserError, match="'f0' is there twice"):
        paired(frame(0.0), pd.concat([frame(0.0)] * 2))
    with pytest.raises(UserError, match="no measure in common"):
        paired(frame(0.0), frame(0.0).drop(columns="recall"))
    with pytest.raises(UserError, match="cannot be grouped by"):
        paired(frame(0.0), frame(0.0), by=("colour",))
