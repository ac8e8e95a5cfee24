"""Fact by fact: fates against the frames written out by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from mechunlearn.dissection.summary import summarise_recovery
from mechunlearn.reporting import Words
from mechunlearn.reporting.fact_table import SHOWN, FactTable

from . import synthetic


def table_of(frame: pd.DataFrame, facts: pd.DataFrame | None = None, hostile: list[str] | None = None) -> FactTable:
    facts = synthetic.facts(frame["fact"].nunique(), hostile) if facts is None else facts
    peaks = Words.of(summarise_recovery(frame, resamples=20)).peaks
    return FactTable.of(facts, synthetic.answers(frame, hostile), frame, peaks)


def test_every_site_at_its_best_and_in_all_layers_the_strongest_first() -> None:
    labels = [choice.label for choice in table_of(synthetic.frame(12)).choices]
    assert labels[0].startswith("MLP coefficients with attention output, layers")
    assert "MLP coefficients with attention output, all layers" in labels
    assert "Embedding" not in labels and "embedding" in labels  # outside the blocks: one patch, no window
    assert len(labels) == len(set(labels)) == 2 * len(synthetic.SHAPES) + len(synthetic.NEITHER)


def test_fates_are_those_of_the_frames() -> None:
    frame = synthetic.frame(12)
    facts = synthetic.facts(12)
    facts.loc[5, "before_correct"] = False
    table = table_of(frame, facts)
    for choice in table.choices:
        for row, right, status in zip(facts.itertuples(), choice.correct, choice.statuses, strict=True):
            expected = "still known" if row.after_correct else "came back" if right else "stayed away"
            assert status == ("never known" if row.fact == "5" else expected)
    best = table.choices[0]
    assert best.told == "8 of 10 forgotten facts are answered right again."  # two are undefined, and count as wrong
    assert best.recovery[-1] is None and all(value is not None for value in best.recovery[:10])


def test_the_damage_put_in_has_fates_of_its_own() -> None:
    frame = synthetic.frame(10, directions=("after->before",))
    table = table_of(frame)
    best = table.choices[0]
    assert set(best.statuses) == {"withstood", "knocked out"} <= set(table.statuses)
    assert best.told == f"{best.statuses.count('knocked out')} of 10 known facts are no longer answered right."


def test_the_payload_says_the_same_in_numbers() -> None:
    table = table_of(synthetic.frame(9), hostile=["</script><script>", "a" * 900, "שלום"])
    held = json.loads(table.payload)
    for choice, told in zip(table.choices, held["choices"], strict=True):
        assert [held["texts"][number] for number in told["answers"]] == choice.answers
        assert [held["statuses"][number] for number in told["statuses"]] == choice.statuses
        assert told["correct"] == [int(value) for value in choice.correct]
        assert told["recovery"] == choice.recovery and told["told"] == choice.told
    assert max(map(len, held["texts"])) == 401  # cut, and marked as cut


def test_maps_alone_have_no_patch_to_choose() -> None:
    frame = synthetic.frame(4, positions=True)
    table = table_of(frame[frame["position"].notna()])
    assert table.choices == [] and len(table.rows) == 4
    assert json.loads(table.payload)["choices"] == []


def test_a_long_list_is_cut_and_counted() -> None:
    table = table_of(synthetic.frame(3), synthetic.facts(SHOWN + 7).assign(fact=lambda f: f["fact"]))
    assert len(table.rows) == SHOWN and table.n_facts == SHOWN + 7


@pytest.mark.parametrize("missing", ["fact", "window"])
def test_a_patch_without_answers_for_all_facts_is_not_offered(missing: str) -> None:
    frame = synthetic.frame(6)
    answers = synthetic.answers(frame)
    peaks = Words.of(summarise_recovery(frame, resamples=20)).peaks
    if missing == "window":
        answers = answers[answers["site"] != "value_vectors"]
        found = FactTable.of(synthetic.facts(6), answers, frame, peaks)
        assert found.choices and not any("alue vectors" in choice.label for choice in found.choices)
    else:
        found = FactTable.of(synthetic.facts(6), answers[answers["fact"] != "2"], frame, peaks)
        assert found.choices == []
