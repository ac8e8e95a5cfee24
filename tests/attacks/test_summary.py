"""From rows to tables, beside sums written out by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from mechunlearn.attacks.summary import ANY, curve, recovered, steps_to_recover, summarise_attacks
from mechunlearn.errors import UserError
from mechunlearn.evaluation import bootstrap_interval, share_difference_interval, share_interval

MODELS = ("after", "never-knew")
FACTS = ("a", "b", "c", "d")


def rows(attack: str, setting: str, part: str, step: int, model: str, values: dict[str, list[float]], **changed: Any):
    """One row a question; `values`: by fact, one value a question."""
    return [
        {
            "attack": attack, "setting": setting, "part": part, "step": step, "model": model, "fact": fact,
            "question": f"{fact}#h{number}", "role": "forget", "fold": 0, "correct": value, "probability": 1 - value,
            "helped": False, "broke": "",
        }
        | changed
        for fact, found in values.items()
        for number, value in enumerate(found)
    ]  # fmt: skip


def unattacked(model: str, values: dict[str, list[float]]):
    return rows("none", "", "", 0, model, values)


def random_frame(seed: int) -> pd.DataFrame:
    """Two settings in steps, parts that overlap, and facts with one to three questions."""
    draw = np.random.default_rng(seed)
    counts = {fact: int(draw.integers(1, 4)) for fact in FACTS}
    known = lambda facts: {fact: draw.random(counts[fact]).round(2).tolist() for fact in facts}  # noqa: E731
    found = [row for model in MODELS for row in unattacked(model, known(FACTS))]
    for setting in ("slow", "fast"):
        for part, facts in (("left", FACTS[:2]), ("right", FACTS[2:]), ("most", FACTS[1:])):
            for model in MODELS:
                for step in range(3):
                    found += rows("relearn", setting, part, step, model, known(facts))
    return pd.DataFrame(found)


def by_hand(frame: pd.DataFrame, setting: str, model: str) -> tuple[dict[str, float], float, dict[str, float]]:
    """Each fact's value at the worst step of each part, the mean worst step, and the values at the last step."""
    own = frame[(frame["attack"] == "relearn") & (frame["setting"] == setting) & (frame["model"] == model)]
    worst, last, chosen = [], [], []
    for part in sorted(set(own["part"])):
        means = []
        for step in (0, 1, 2):
            there = own[(own["part"] == part) & (own["step"] == step)]
            means.append(np.mean([there[there["fact"] == fact]["correct"].mean() for fact in set(there["fact"])]))
        best = int(np.argmax(np.round(means, 12)))
        chosen.append(best)
        worst.append(own[(own["part"] == part) & (own["step"] == best)])
        last.append(own[(own["part"] == part) & (own["step"] == 2)])

    def mean(tables):
        table = pd.concat(tables)
        return {fact: float(np.mean(table["correct"][table["fact"] == fact])) for fact in FACTS}

    return mean(worst), float(np.mean(chosen)), mean(last)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_the_summary_by_setting_is_what_it_says(seed):
    frame = random_frame(seed)
    table = summarise_attacks(frame).set_index("setting")
    assert list(table.index) == ["slow", "fast"] and (table["n"] == len(FACTS)).all()
    assert (table["n_clusters"] == len(FACTS)).all()  # this frame has no subjects
    for setting in table.index:
        row = table.loc[setting]
        (value, step, last), (twin, _, _) = (by_hand(frame, setting, model) for model in MODELS)
        for name, values in (("value", value), ("last", last), ("never_knew", twin)):
            listed = list(values.values())
            low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
            expected = [np.mean(listed), *share_interval(listed)]
            np.testing.assert_allclose([row[name], row[low], row[high]], expected, atol=1e-12)
        apart = [np.mean([value[fact] - twin[fact] for fact in FACTS])]
        apart += share_difference_interval(list(twin.values()), list(value.values()))
        np.testing.assert_allclose(row[["excess", "excess_low", "excess_high"]].astype(float), apart, atol=1e-12)
        assert row["step"] == pytest.approx(step)
        start = frame[(frame["attack"] == "none") & (frame["model"] == "after")]
        assert row["start"] == pytest.approx(np.mean([start[start["fact"] == f]["correct"].mean() for f in FACTS]))
        assert np.isnan(row["before"]) and np.isnan(row["near"])
    assert table["excess"].to_numpy() == pytest.approx((table["value"] - table["never_knew"]).to_numpy())


def test_the_worst_step_is_chosen_over_facts_not_over_questions():
    """Three of a's four questions come back at step 1; over facts step 2, where b comes back, is worse."""
    found = unattacked("after", {"a": [0], "b": [0]})
    found += rows("relearn", "x", "", 1, "after", {"a": [1, 1, 1, 0], "b": [0]})
    found += rows("relearn", "x", "", 2, "after", {"a": [0, 0, 0, 0], "b": [1]})
    row = summarise_attacks(pd.DataFrame(found)).iloc[0]
    assert (row["step"], row["value"], row["last"]) == (2, 0.5, 0.5)
    found += rows("relearn", "x", "", 3, "after", {"a": [1, 0, 0, 0], "b": [1]})
    row = summarise_attacks(pd.DataFrame(found)).iloc[0]
    assert (row["step"], row["value"], row["last"]) == (3, 0.625, 0.625)
    found += rows("relearn", "x", "", 4, "after", {"a": [1, 1, 1, 1], "b": [0]})
    row = summarise_attacks(pd.DataFrame(found)).iloc[0]
    assert (row["step"], row["value"], row["last"]) == (3, 0.625, 0.5)


def strongest_frame() -> pd.DataFrame:
    found = [
        *unattacked("after", {fact: [0.0] for fact in FACTS}),
        *unattacked("never-knew", {"a": [0.5], "b": [0.0], "c": [0.0], "d": [0.0]}),
        *unattacked("before", {fact: [1.0] for fact in FACTS}),
    ]
    share = lambda *values: {fact: [value] for fact, value in zip(FACTS, values, strict=False)}  # noqa: E731
    for setting, after, twin, before in (
        ("wide", share(0.5, 0.5, 0.5, 0.5), share(0.25, 0.0, 0.0, 0.0), share(0.9, 0.9, 0.9, 0.9)),
        ("narrow", share(1.0), share(1.0), share(1.0)),  # only a is asked
        ("weak", share(0.1, 0.1, 0.1, 0.1), share(0.5, 0.5, 0.0, 0.0), share(1.0, 1.0, 1.0, 1.0)),
    ):
        for model, values in (("after", after), ("never-knew", twin), ("before", before)):
            found += rows("prompts", setting, "", 0, model, values)
    for model in MODELS:
        found += rows("noise", "small", "draw 1", 0, model, share(0.6, 0.6, 0.6, 0.6) if model == "after" else share(0))
        found += rows("steer", "layer 1", "", 0, model, share(1.0, 1.0, 1.0, 1.0), helped=True)
    found += rows("noise", "small", "", 0, "after", {"n": [1.0, 0.0, 0.0], "m": [1.0]}, role="near")
    return pd.DataFrame(found)


def test_the_strongest_setting_is_chosen_on_the_same_facts_for_each_model_by_itself():
    table = summarise_attacks(strongest_frame(), by="attack").set_index("attack")
    prompts = table.loc["prompts"]
    assert prompts["setting"] == "wide"  # "narrow" has the higher mean, but of one fact of four
    assert prompts["value"] == 0.5 and prompts["n"] == 4
    assert (
        prompts["never_knew"] == 0.25
    )  # by "weak"; "narrow", with b, c and d unattacked, gives as much, and "wide" less
    assert prompts["excess"] == 0.25
    assert prompts["before"] == pytest.approx(0.9)  # in the setting of the model after
    assert np.isnan(table.loc["noise", "before"])
    assert table.loc["noise", "near"] == pytest.approx((1 / 3 + 1) / 2)  # over facts, not over questions
    assert np.isnan(prompts["near"])


def test_any_of_these_leaves_out_what_needs_the_model_before():
    table = summarise_attacks(strongest_frame(), by="attack")
    assert list(table["attack"]) == ["prompts", "noise", "steer", ANY]
    row = table.set_index("attack").loc[ANY]
    assert row["setting"] == "noise: small" and row["value"] == pytest.approx(0.6)
    assert row["near"] == table.set_index("attack").loc["noise", "near"]
    # The twin's strongest is another attack: the pairs are facts all the same.
    twin = recovered(strongest_frame(), by="attack").query("attack == @ANY and model == 'never-knew'")
    assert set(twin["setting"]) == {"prompts: narrow"} and list(twin["fact"]) == list(FACTS)
    assert list(twin["value"]) == [1.0, 0.0, 0.0, 0.0]
    assert row["excess"] == pytest.approx(0.6 - 0.25) and row["never_knew"] == 0.25


def test_facts_that_a_setting_does_not_ask_are_left_out_by_setting():
    table = summarise_attacks(strongest_frame()).set_index("setting")
    assert list(table["n"]) == [4, 1, 4, 4, 4]
    assert table.loc["narrow", "value"] == 1 and table.loc["narrow", "excess"] == 0
    assert table.loc["weak", "before"] == 1


def test_without_a_twin_there_is_no_excess():
    frame = strongest_frame()
    for by in ("setting", "attack"):
        table = summarise_attacks(frame[frame["model"] != "never-knew"], by=by)
        names = [name for name in table if "never_knew" in name or "excess" in name]
        assert len(names) == 6 and table[names].isna().all(axis=None) and table["value"].notna().all()


@pytest.mark.parametrize("by", ["setting", "attack"])
@pytest.mark.parametrize("measure", ["correct", "probability"])
def test_a_model_beside_itself_has_no_excess(by, measure):
    frame = random_frame(1)
    after = frame[frame["model"] == "after"]
    table = summarise_attacks(pd.concat([after, after.assign(model="never-knew")]), measure, by=by)
    assert (table["excess"] == 0).all() and (table["value"] == table["never_knew"]).all()
    if measure == "probability":
        assert (table[["excess_low", "excess_high"]] == 0).all(axis=None)
    else:  # two models that are right about the same four facts are not shown to be the same
        assert (table["excess_low"] < 0).all() and (table["excess_high"] > 0).all()


def test_a_probability_is_resampled_and_its_excess_paired():
    frame = random_frame(2)
    table = summarise_attacks(frame, "probability", resamples=200, seed=3).set_index("setting")
    for setting in table.index:
        found = recovered(frame, "probability").query("setting == @setting").pivot(index="fact", columns="model")
        after, twin = found["value"]["after"], found["value"]["never-knew"]
        for names, values in (
            (("value", "low", "high"), after),
            (("last", "last_low", "last_high"), found["last"]["after"]),
            (("excess", "excess_low", "excess_high"), after - twin),
        ):
            expected = [values.mean(), *bootstrap_interval(values, resamples=200, seed=3)]
            np.testing.assert_allclose(table.loc[setting, list(names)].astype(float), expected, atol=1e-12)


def test_facts_of_one_subject_count_together():
    """a and b are of one subject, c has none and d its own: three clusters, whatever the order of rows."""
    subjects = {"a": "x", "b": "x", "c": None, "d": "y"}
    frame = random_frame(4).assign(subject=lambda rows: rows["fact"].map(subjects))
    table = summarise_attacks(frame).set_index("setting")
    assert (table["n"] == 4).all() and (table["n_clusters"] == 3).all()
    values = recovered(frame).query("setting == 'slow' and model == 'after'").set_index("fact")["value"]
    expected = share_interval(values[list(FACTS)], clusters=["x", "x", None, "y"])
    assert tuple(table.loc["slow", ["low", "high"]]) == pytest.approx(expected)
    assert (curve(frame)["n_clusters"] == 3).all()
    mixed = frame.sample(frac=1, random_state=0)
    again = summarise_attacks(mixed, "probability").set_index("setting").loc[["slow", "fast"]]
    pd.testing.assert_frame_equal(again, summarise_attacks(frame, "probability").set_index("setting"))
    alone = summarise_attacks(frame, cluster="fact")
    assert (alone["n_clusters"] == 4).all()
    with pytest.raises(UserError, match="no such column"):
        summarise_attacks(frame, cluster="colour")
    with pytest.raises(UserError, match=r"'.' has several"):
        summarise_attacks(frame, cluster="part")


def test_the_curve_and_the_first_step_that_recovers():
    frame = random_frame(5)
    found = curve(frame)
    assert len(found) == 2 * 2 * 3
    for row in found.itertuples():
        own = frame[
            (frame["attack"] == row.attack)
            & (frame["setting"] == row.setting)
            & (frame["model"] == row.model)
            & (frame["step"] == row.step)
        ]
        values = [own[own["fact"] == fact]["correct"].mean() for fact in FACTS]
        expected = [np.mean(values), *share_interval(values)]
        np.testing.assert_allclose([row.value, row.low, row.high], expected, atol=1e-12)
        assert row.n == row.n_clusters == 4
    level = float(found["value"].median())
    reached = steps_to_recover(frame, level).set_index(["setting", "model"])["step"]
    for key, own in found.groupby(["setting", "model"]):
        steps = [step for step, value in zip(own["step"], own["value"], strict=True) if value >= level]
        assert reached[key] == steps[0] if steps else np.isnan(reached[key])
    with pytest.raises(UserError, match="level must be at most 1"):
        steps_to_recover(frame, 2.0)
    assert (steps_to_recover(frame, 0.0)["step"] == 0).all()


def test_attacks_without_steps_have_no_curve():
    assert not len(curve(strongest_frame())) and not len(steps_to_recover(strongest_frame()))


def test_wrong_wishes():
    with pytest.raises(UserError, match="no measure 'rouge'"):
        summarise_attacks(random_frame(0), "rouge")
    with pytest.raises(UserError, match="no measure 'rouge'"):
        curve(random_frame(0), "rouge")
    with pytest.raises(UserError, match="by setting or by attack"):
        summarise_attacks(random_frame(0), by="model")


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_moves_no_bound(seed):
    """Without subjects each fact is resampled by itself, by its name and not by its place."""
    frame = random_frame(seed)
    frame = frame.drop(columns="subject", errors="ignore")
    keys = ["attack", "setting"]
    whole, mixed = (
        summarise_attacks(some).sort_values(keys, ignore_index=True)
        for some in (frame, frame.sample(frac=1, random_state=seed))
    )
    numbers = whole.select_dtypes("number").columns
    np.testing.assert_allclose(whole[numbers].astype(float), mixed[numbers].astype(float), rtol=0, atol=1e-12)
