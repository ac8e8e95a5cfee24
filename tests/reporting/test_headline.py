"""The verdict claims what the summary shows, and warns where it must."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from mechunlearn.dissection.metrics import METRICS
from mechunlearn.dissection.peaks import amount, decimal, strongest
from mechunlearn.dissection.plotting.styles import site_words
from mechunlearn.dissection.summary import summarise_recovery
from mechunlearn.reporting import Words

from . import synthetic


def summary(values: dict[str, dict[tuple[int, int], float]], n: int = 100, **columns: object) -> pd.DataFrame:
    """Means by site and window; parameters are told by their names."""
    rows = [
        {
            "site": site,
            "kind": "activation" if site in ("mlp_coefficients", "attention_output", "residual") else "parameters",
            "direction": "before->after",
            "first_layer": first,
            "last_layer": last,
            "centre": (first + last) / 2,
            "position": pd.NA,
            "metric": "mse",
            "mean_of_ratios": value,
            "mean_low": value - 0.02,
            "mean_high": value + 0.02,
            "ratio_of_means": value,
            "ratio_low": value - 0.02,
            "ratio_high": value + 0.02,
            "n": n,
            "n_undefined": 0,
        }
        for site, windows in values.items()
        for (first, last), value in windows.items()
    ]
    return pd.DataFrame(rows).assign(**columns)  # pyright: ignore[reportArgumentType]


FLAT = {(0, 1): 0.01, (2, 3): -0.02, (0, 3): 0.03}
GOOD = synthetic.controls()
FACTS = synthetic.facts(100)


def answers(right: dict[str, dict[tuple[int, int], float]], n: int = 100) -> pd.DataFrame:
    """By site and window, the share answered right."""
    rows = [
        {"fact": str(i), "question": str(i), "site": site, "direction": "before->after", "first_layer": first,
         "last_layer": last, "answer": "", "correct": i < share * n, "probability": share, "rank": 30 - 20 * share}
        for site, windows in right.items() for (first, last), share in windows.items() for i in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def words(values: dict[str, dict[tuple[int, int], float]], **options: object) -> Words:
    given = {"controls": GOOD, "facts": FACTS, "answers": answers(values)} | options
    return Words.of(summary(values), **given)  # pyright: ignore[reportArgumentType]


def test_the_published_picture() -> None:
    verdict = words({"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.8, (0, 3): 0.9}, "value_vectors": FLAT})
    assert verdict.headline.startswith(
        "The answer can be put back: given the before model's MLP coefficients in layers 2–3, the after model answers "
        "80% right [71%, 87%] (before 100%, after 1%); much of the squared difference of the logits is undone (0.80)."
    )
    assert "value vectors undoes next to nothing" in verdict.headline
    assert "left in place" in verdict.headline
    assert verdict.warnings == ()
    assert "0.90 in all layers at once" in verdict.evidence[1]


def test_a_distance_that_closes_while_the_answer_stays_away_is_told_first() -> None:
    """Seen on a pretrained model: 0.87 of the squared difference undone, 3 % answered right, 58 % before."""
    values = {"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.87, (0, 3): 0.9}, "value_vectors": FLAT}
    known = FACTS.assign(
        before_correct=[i < 58 for i in range(100)], after_correct=False,
        before_probability=0.5, after_probability=1e-4, before_rank=2.0, after_rank=900.0,
    )  # fmt: skip
    shut = answers({"mlp_coefficients": {(0, 1): 0.0, (2, 3): 0.03, (0, 3): 0.5}})
    verdict = words(values, facts=known, answers=shut)
    assert verdict.headline.startswith(
        "The distance closes and the answer stays away: given the before model's MLP coefficients in layers 2–3, "
        "nearly everything of the squared difference of the logits is undone (0.87), but the model answers 3% right "
        "[1%, 8%] "
        "(before 58%, after 0%); an answer token has the probability 0.03 (before 0.5, after 0.0001) and the mean rank "
        "29.4 (before 2, after 900). What is left of the difference still hides the answer."
    )
    assert "left in place" not in verdict.headline and "can be put back" not in verdict.headline
    elsewhere = answers({"mlp_coefficients": {(0, 1): 0.5, (2, 3): 0.03, (0, 3): 0.5}})
    told = words(values, facts=known, answers=elsewhere).headline
    assert "Yet the answer can be put back: given the before model's MLP coefficients in layers 0–1" in told
    assert "answers 50% right" in told


def test_an_answer_that_comes_back_while_the_distance_stays_is_told() -> None:
    values = {"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.1}}
    said = answers({"mlp_coefficients": {(0, 1): 0.1, (2, 3): 0.9}})
    headline = words(values, answers=said).headline
    assert headline.startswith(
        "The answer can be put back while most of the distance stays: given the before model's MLP coefficients in "
        "layers 2–3, the after model answers 90% right [83%, 94%] (before 100%, after 1%); no patched state undoes "
        "more than 0.20 of the squared difference of the logits in any window of at most half of the layers."
    )


def known(before: float, after: float, probabilities: tuple[float, float]) -> pd.DataFrame:
    """Two models that answer these shares right, with these probabilities of an answer token."""
    return FACTS.assign(
        before_correct=[i < before * 100 for i in range(100)], after_correct=[i < after * 100 for i in range(100)],
        before_probability=probabilities[0], after_probability=probabilities[1], before_rank=2.0, after_rank=900.0,
    )  # fmt: skip


CLOSED = {"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.87}}


def under(right: float, probability: float, direction: str = "before->after") -> pd.DataFrame:
    table = answers({"mlp_coefficients": {(0, 1): 0.0, (2, 3): right}})
    return table.assign(direction=direction, probability=probability)


def test_a_third_of_the_answers_is_not_the_answer() -> None:
    headline = words(CLOSED, facts=known(0.58, 0, (0.5, 1e-4)), answers=under(0.18, 0.1)).headline
    assert headline.startswith("The distance closes and most answers stay away: given the before model's MLP coeff")
    assert "the model answers 18% right" in headline and "can be put back" not in headline


def test_long_answers_that_nobody_gives_whole_are_judged_by_their_probability() -> None:
    """Exact recall 4 % before, 0 after, where the probability of an answer token fell from 0.61 to 0.003."""
    lost = known(0.04, 0, (0.61, 0.003))
    back = words(CLOSED, facts=lost, answers=under(0.03, 0.6)).headline
    assert back.startswith("The answer can be put back: given") and "hardly differ" not in back
    assert "the probability 0.6 (before 0.61, after 0.003)" in back
    away = words(CLOSED, facts=lost, answers=under(0.03, 0.01)).headline
    assert away.startswith("The distance closes and the answer stays away") and "hardly differ" not in away
    alike = words(CLOSED, facts=known(0.04, 0, (0.03, 0.003)), answers=under(0.03, 0.02)).headline
    assert "the answers themselves hardly differ" in alike


@pytest.mark.parametrize(("right", "probability"), [(0.05, 0.55), (0.5, 0.05)])
def test_answers_and_probability_that_part_are_both_told(right: float, probability: float) -> None:
    facts = known(0.6, 0, (0.61, 0.003))
    headline = words(CLOSED, facts=facts, answers=under(right, probability)).headline
    assert headline.startswith("Answers and their probability part: given the before model's MLP coefficients")
    assert f"answers {right:.0%} right" in headline and f"the probability {probability:.2g}" in headline
    assert "can be put back" not in headline and "stays away" not in headline


def test_all_layers_at_once_are_no_headline() -> None:
    whole = {"mlp_coefficients": {(0, 3): 0.97}}
    headline = words(whole).headline
    assert headline.startswith("Only windows of more than half of the layers were patched, which replaces most")
    assert "answers 97% right" in headline and "can be put back" not in headline


def test_damage_is_said_of_answers() -> None:
    for right, start in ((0.97, "The predictions move and the answers withstand"), (0.02, "The damage can be carried")):
        table = summary(CLOSED, direction="after->before")
        said = answers({"mlp_coefficients": {(2, 3): right}}).assign(direction="after->before")
        headline = Words.of(table, controls=GOOD, facts=FACTS, answers=said).headline
        assert headline.startswith(start) and f"answers {right:.0%} right" in headline
        assert "nearly everything of the squared difference of the logits (0.87)" in headline


def test_what_is_answered_at_a_peak_is_of_one_direction() -> None:
    table = summary(CLOSED)
    both = pd.concat([under(0.9, 0.9), under(0.1, 0.1, "after->before")])
    for direction, right in (("before->after", 0.9), ("after->before", 0.1)):
        shown = strongest(table.assign(direction=direction), answers=both)
        assert shown["answered right"].item() == f"{right:.1%}"


def test_without_answers_nothing_is_said_about_them() -> None:
    values = {"mlp_coefficients": {(2, 3): 0.9}, "value_vectors": FLAT, "mlp_keys": {(0, 1): 0.95}}
    for missing in ({"answers": None}, {"facts": None}):
        verdict = words(values, **missing)
        assert verdict.headline.startswith("Nearly everything of the squared difference of the logits is undone (0.90)")
        assert "answer can be put back" not in verdict.headline and "% right" not in verdict.headline
        assert "left in place" not in verdict.headline


def test_models_that_answer_alike_have_no_answer_to_put_back() -> None:
    both = FACTS.assign(before_correct=False, after_correct=False)
    headline = words({"mlp_coefficients": {(2, 3): 0.9}}, facts=both).headline
    assert "the answers themselves hardly differ" in headline and "put back" not in headline


@pytest.mark.parametrize("metric", ["kl", "answer_logprob"])
def test_the_distance_is_named_by_its_metric(metric: str) -> None:
    table = summary({"mlp_coefficients": {(2, 3): 0.8}}, metric=metric)
    said = Words.of(
        table, controls=GOOD, facts=FACTS, answers=answers({"mlp_coefficients": {(2, 3): 0.8}}), metric=metric
    )
    assert f"much of the {METRICS[metric].words} is undone (0.80)" in said.headline


def test_value_vectors_left_in_place_is_only_said_where_coefficients_recover() -> None:
    verdict = words({"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.1}, "value_vectors": FLAT})
    assert "left in place" not in verdict.headline and "No patched state" in verdict.headline


def test_one_window_in_which_value_vectors_matter_is_not_nothing() -> None:
    for value in (0.4, -0.4):
        verdict = words({"mlp_coefficients": {(2, 3): 0.8}, "value_vectors": FLAT | {(1, 2): value}})
        assert "value vectors undoes next to nothing of the change in any window" not in verdict.headline
    assert "worst window" in " ".join(verdict.evidence)


def test_value_vectors_that_matter_a_little_are_measured() -> None:
    verdict = words({"mlp_coefficients": {(2, 3): 0.8}, "value_vectors": {(0, 1): 0.14, (2, 3): -0.2}})
    assert (
        "value vectors undoes little of the change (at most 0.14 in layers 0–1, -0.20 in the worst" in verdict.headline
    )


def test_parameters_that_undo_the_change_are_named() -> None:
    verdict = words({"mlp_keys": {(0, 1): 0.95, (2, 3): 0.0}, "value_vectors": FLAT})
    assert "restoring MLP keys in layers 0–1 alone undoes nearly everything" in verdict.headline


def test_the_residual_stream_is_no_cause() -> None:
    verdict = words({"residual": {(0, 0): 0.99}, "attention_output": {(0, 1): 0.05}})
    assert "residual" not in verdict.headline and "No patched state" in verdict.headline
    assert "holds too much" in words({"residual": {(0, 0): 0.99}}).headline


def test_a_change_that_only_all_layers_bring_back_is_told() -> None:
    spread = words({"mlp_coefficients": {(0, 0): 0.1, (1, 1): 0.12, (0, 1): 0.9}}).headline
    assert (
        "more than 0.12 of the squared difference of the logits in any window (MLP coefficients in layer 1) of at most"
        in spread
    )
    assert "all layers at once undo 0.90" in spread
    assert "all layers" not in words({"mlp_coefficients": {(0, 0): 0.1, (1, 1): 0.12, (0, 1): 0.2}}).headline


def test_all_undefined() -> None:
    frame = synthetic.frame(5, undefined=5)
    verdict = Words.of(summarise_recovery(frame, resamples=20), controls=GOOD, facts=FACTS)
    assert verdict.headline.startswith("Undefined")
    assert not any("nan" in text for text in (*verdict.evidence, *verdict.warnings))


def test_some_undefined_and_few_facts_are_warned_of() -> None:
    frame = synthetic.frame(5, undefined=2)
    warnings = " ".join(Words.of(summarise_recovery(frame, resamples=20), controls=GOOD, facts=FACTS).warnings)
    assert "Only 3 facts" in warnings and "2 of 5 facts are undefined" in warnings


def test_failing_and_missing_controls_are_warned_of() -> None:
    values = {"mlp_coefficients": {(2, 3): 0.8}}
    failed = words(values, controls=synthetic.controls(failing=True)).warnings
    assert "1 of 3 controls failed: empty window" in failed[0]
    assert "No controls" in words(values, controls=None).warnings[0]


def test_models_that_never_knew_or_still_know_are_warned_of() -> None:
    values = {"mlp_coefficients": {(2, 3): 0.8}}
    assert "only 0% right" in " ".join(words(values, facts=FACTS.assign(before_correct=False)).warnings)
    assert "still answers 100% right" in " ".join(words(values, facts=FACTS.assign(after_correct=True)).warnings)


def test_estimators_that_disagree_are_warned_of() -> None:
    table = summary({"mlp_coefficients": {(2, 3): 0.8}}, ratio_of_means=0.4)
    assert "0.80 against 0.40" in " ".join(Words.of(table, controls=GOOD, facts=FACTS).warnings)


def test_the_other_direction_speaks_of_damage_only_with_answers() -> None:
    table = summary({"mlp_coefficients": {(0, 1): 0.2, (2, 3): 0.8}}, direction="after->before")
    verdict = Words.of(table, controls=GOOD, facts=FACTS)
    assert verdict.headline.startswith("Given the after model's MLP coefficients in layers 2–3, the before model takes")
    assert "what it answers then was not recorded" in verdict.headline and "damage" not in verdict.headline
    both = Words.of(summarise_recovery(synthetic.frame(4, directions=("before->after", "after->before")), resamples=20))
    assert "of the squared difference of the logits is undone" in both.headline and "answer " not in both.headline
    assert both.evidence[-1].startswith("Given the after model's")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.9, "nearly everything"), (0.6, "much"), (0.3, "a part"), (0.1, "little"), (0.09, "next to nothing"),
     (-3.0, "next to nothing")],
)  # fmt: skip
def test_amounts(value: float, expected: str) -> None:
    assert amount(value) == expected


def test_small_texts() -> None:
    assert decimal(-0.001) == "0.00" and decimal(-0.01) == "-0.01"
    assert site_words("attention_qk") == "attention QK" and site_words("mlp_keys") == "MLP keys"


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from([*synthetic.SHAPES, "residual", "block", "my.regex"]),
                       st.dictionaries(st.sampled_from([(0, 1), (2, 3), (0, 3), (1, 1), (-1, -1)]),
                                       st.floats(-50, 1) | st.just(np.nan), min_size=1), min_size=1))  # fmt: skip
def test_there_is_always_a_sentence(values: dict[str, dict[tuple[int, int], float]]) -> None:
    table = summary(values)
    table.loc[table["mean_of_ratios"].isna(), "n"] = 0
    verdict = Words.of(table)
    assert verdict.headline and len(verdict.peaks) == len(values)
    assert "nan" not in " ".join((verdict.headline, *verdict.evidence)).lower()


def test_a_map_of_positions_gets_no_verdict() -> None:
    table = summary({"residual": {(2, 2): 0.8}}).assign(position=3)
    verdict = Words.of(table, controls=GOOD, facts=FACTS)
    assert "map of single positions" in verdict.headline
    assert "Undefined" not in verdict.headline
    assert verdict.peaks == ()
