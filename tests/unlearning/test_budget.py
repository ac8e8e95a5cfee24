"""The limits, the referee, and runs that meet them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.evaluation import score_answers, text_kl, text_loss
from mechunlearn.facts import Fact, Facts, tokenize
from mechunlearn.models import hf, load
from mechunlearn.unlearning import NPO, Budget, GradientAscent, GradientDifference, unlearn
from mechunlearn.unlearning.loop import stage
from mechunlearn.unlearning.loop.budget import Referee, chance, check_recall
from mechunlearn.unlearning.loop.evaluations import Watch

from ..architectures import tiny
from ..pairs import word_level
from .conftest import TEXT
from .test_resume import digest

START = {
    "forget_recall": 1.0, "forget_probability": 0.9, "near_recall": 0.8, "far_recall": 1.0,
    "text_loss": 2.0, "text_kl": 0.0, "text_entropy": 2.0,
}  # fmt: skip
QUICK = {"steps": 12, "learning_rate": 4e-3, "batch_size": 8, "evaluate_every": 2, "progress": False, "text": TEXT}


def referee(budget: Budget | None = None, **more) -> Referee:
    return Referee(START, budget, more.pop("goals", {}), more.pop("patience", None), 50, **more)


@pytest.mark.parametrize(
    ("limits", "changed", "broken"),
    [
        ({"kl": 0.01}, {"text_kl": 0.0101}, "text KL 0.0101 above 0.01"),
        ({"kl": 0.01}, {"text_kl": 0.01}, None),
        ({"loss": 0.001}, {"text_loss": 2.0021}, "text loss rise 0.00105 above 0.001"),
        ({"loss": 0.001}, {"text_loss": 2.0019}, None),
        ({"loss": 0.001}, {"text_loss": 1.5}, None),
        ({"near": 0.7}, {"near_recall": 0.69}, "near recall 0.69 below 0.7"),
        ({"near": 0.7}, {"near_recall": 0.7}, None),
        ({"far": 0.9}, {"far_recall": 0.8}, "far recall 0.8 below 0.9"),
        ({"kl": 0.01}, {"text_kl": math.nan}, "text KL nan above 0.01"),
        ({"near": 0.7}, {"near_recall": math.nan}, "near recall nan below 0.7"),
        ({"kl": 0.5, "near": 0.7}, {"text_kl": 0.1, "near_recall": 0.1}, "near recall 0.1 below 0.7"),
        ({"kl": 0.0}, {}, None),
    ],
)
def test_limits(limits, changed, broken):
    assert Budget(**limits).broken(START | changed, START) == broken


@pytest.mark.parametrize(
    "limits", [{}, {"kl": -0.1}, {"near": math.nan}, {"kl": math.inf}, {"kl": 0.1, "halvings": -1}]
)
def test_a_budget_that_makes_no_sense(limits):
    with pytest.raises(UserError, match=r"[Bb]udget|halvings"):
        Budget(**limits)


@pytest.mark.parametrize(
    ("limits", "gone", "message"),
    [
        ({"kl": 0.01}, "text_kl", "limits text KL, which is not measured: give `text`"),
        ({"loss": 0.01}, "text_loss", "limits text loss rise, which is not measured: give `text`"),
        ({"near": 0.5}, "near_recall", "limits near recall, which is not measured: give retain facts that role"),
        ({"far": 0.5}, "far_recall", "limits far recall, which is not measured"),
        ({"near": 0.9}, None, "start model already breaks the budget: near recall 0.8 below 0.9"),
    ],
)
def test_a_start_that_cannot_be_judged_or_is_outside(limits, gone, message):
    start = {name: value for name, value in START.items() if name != gone}
    with pytest.raises(UserError, match=message):
        Budget(**limits).check(start, start)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"near_recall": 0.079}, "recall on near facts fell from 0.80 to 0.08"),
        ({"near_recall": 0.081}, None),
        ({"far_recall": 0.0}, "recall on far facts fell from 1.00 to 0.00"),
        ({"text_entropy": 0.49}, "entropy of predictions on general text went from 2.00 to 0.49 nats"),
        ({"text_entropy": 0.51}, None),
        ({"text_entropy": 2 + (math.log(50) - 2) / 2 + 0.01}, "went from 2.00 to 2.97 nats"),
        ({"text_entropy": 2 + (math.log(50) - 2) / 2 - 0.01}, None),
        ({"text_entropy": math.nan}, "text entropy is not a number"),
        ({"forget_probability": math.nan}, "forget probability is not a number"),
        ({"text_kl": math.inf}, "text kl is not a number"),
    ],
)
def test_collapse_is_named(changed, why):
    found = referee().collapsed(START | changed)
    assert found is None if why is None else why in found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 4))
def test_patience(values, patience):
    judge, best, waited, expected = referee(patience=patience), math.inf, 0, []
    for value in values:
        waited = 0 if value < best - 1e-6 else waited + 1
        best = min(best, value)
        expected.append(waited >= patience)
    found = [judge.done(START | {"forget_probability": value}) is not None for value in values]
    assert found == expected


def test_all_goals_must_be_met():
    judge = referee(goals={"fold_1_recall": 0.2, "forget_recall": 0.3})
    assert judge.done(START | {"fold_1_recall": 0.1, "forget_recall": 0.5}) is None
    reason = judge.done(START | {"fold_1_recall": 0.2, "forget_recall": 0.3})
    assert reason == "fold 1 recall at or below 0.2, forget recall at or below 0.3"


def test_chance(facts):
    assert chance(facts.forget) == pytest.approx(1 / 4)
    bare = type(facts)([type(facts[0])(prompt="the sky is", answer="blue", id="sky")])
    with pytest.raises(UserError, match="fact 'sky' has no distractors, so its chance level is unknown"):
        chance(bare)
    for good in (None, "chance", 0.0, 1.0):
        check_recall("stop", good)
    for bad in ("change", -0.1, 1.5, math.nan):
        with pytest.raises(UserError, match="stop is a recall between 0 and 1, or 'chance'"):
            check_recall("stop", bad)


def spied(monkeypatch) -> list[tuple[int, str]]:
    """The step and the weights of every state that is accepted."""
    seen: list[tuple[int, str]] = []
    original = stage._Loop._accept

    def accept(self, trainer, measured):
        seen.append((trainer.step, digest(self.after)))
        return original(self, trainer, measured)

    monkeypatch.setattr(stage._Loop, "_accept", accept)
    return seen


@pytest.mark.parametrize(
    ("budget", "column", "inside"),
    [
        (Budget(kl=0.02, halvings=3), "text_kl", lambda value: value <= 0.02),
        (Budget(loss=0.05, halvings=3), "text_loss", None),
        (Budget(near=0.9, halvings=3), "near_recall", lambda value: value >= 0.9),
        (Budget(far=1.0, halvings=3), "far_recall", lambda value: value >= 1),
    ],
    ids=["kl", "loss", "near", "far"],
)
def test_a_crossed_budget_sends_the_run_back(knowing, facts, monkeypatch, budget, column, inside):
    accepted, drawn, updates = spied(monkeypatch), {}, []

    def assembled(sources, rows, count, progress):
        updates.append(round(progress * 12))
        content = {kind: index.tolist() for kind, index in rows.items()}
        assert drawn.setdefault(updates[-1], content) == content  # the same batches again
        return assemble(sources, rows, count, progress)

    assemble = stage.assemble
    monkeypatch.setattr(stage, "assemble", assembled)
    text = [f"{fact.prompt} {fact.answer}" for fact in facts.retain]
    options = QUICK | {"text": text, "schedule": "constant", "budget": budget}
    result = unlearn(knowing, GradientAscent(), facts.forget, facts.retain, **options)
    frame = result.frame
    if inside is None:
        start = frame["text_loss"][0]

        def inside(value):
            return bool(value / start - 1 <= 0.05)

    assert frame["inside"].tolist() == [inside(value) for value in frame[column]]
    crossings = int((~frame["inside"]).sum())
    assert crossings == 4
    assert result.about["stopped"].startswith("budget reached: ")
    assert frame["learning_rate"].dropna().tolist() == pytest.approx((4e-3 * frame["scale"])[1:].tolist())
    halved = (~frame["inside"]).astype(int).cumsum().shift(fill_value=0)
    assert frame["scale"].tolist() == [0.5**count for count in halved]
    # Each stretch of two steps begins where the last state inside ended.
    begins = [0] + [step for step, kept in zip(frame["step"][1:], frame["inside"][1:], strict=True) if kept]
    assert set(updates[::2]) == set(begins)
    assert len(updates) == 2 * (len(frame) - 1)

    step, weights = accepted[-1]
    assert digest(result.model) == weights
    assert result.about["step"] == step == frame.loc[frame["inside"], "step"].max()
    last = frame[frame["inside"]].iloc[-1]
    again = Watch(knowing, facts.forget, facts.retain, text).measure(result.model)
    assert again == pytest.approx({name: last[name] for name in again}, abs=1e-6)
    assert text_kl(result.model, knowing, text) == pytest.approx(last["text_kl"], abs=1e-6)
    assert text_loss(result.model, text) == pytest.approx(last["text_loss"], abs=1e-5)


def test_the_first_crossing_ends_a_run_without_halvings(knowing, facts):
    result = unlearn(knowing, NPO(), facts.forget, facts.retain, budget=Budget(kl=1e-6, halvings=0), stop=0.0, **QUICK)
    assert result.frame["inside"].tolist() == [True, False]
    assert result.about["step"] == 0
    assert digest(result.model) == digest(knowing)


def test_a_number_limits_kl(knowing, facts):
    whole = unlearn(knowing, NPO(), facts.forget, facts.retain, budget=Budget(kl=0.05), **QUICK)
    short = unlearn(knowing, NPO(), facts.forget, facts.retain, budget=0.05, **QUICK)
    assert digest(short.model) == digest(whole.model)
    assert whole.about["settings"]["budget"]["kl"] == 0.05


def test_a_wide_budget_changes_nothing(knowing, facts):
    free = unlearn(knowing, NPO(), facts.forget, facts.retain, **QUICK)
    wide = unlearn(knowing, NPO(), facts.forget, facts.retain, budget=Budget(kl=1e3, near=0.0, far=0.0), **QUICK)
    assert digest(free.model) == digest(wide.model)
    assert wide.about["stopped"] == "all steps done"


class Stubborn(GradientDifference):
    """Ends where it finds the budget crossed."""

    rolls_back = False


def test_a_method_that_does_not_go_back_ends_outside(knowing, facts):
    result = unlearn(knowing, Stubborn(), facts.forget, facts.retain, budget=0.01, **QUICK)
    assert result.frame["inside"].tolist() == [True] * (len(result.frame) - 1) + [False]
    assert text_kl(result.model, knowing, TEXT) > 0.01
    assert text_kl(result.model, knowing, TEXT) == pytest.approx(result.frame["text_kl"].iloc[-1], abs=1e-6)
    assert result.about["step"] == result.frame["step"].iloc[-1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": 0.01, "text": None}, "limits text KL, which is not measured: give `text`"),
        ({"budget": Budget(near=1.0)}, "start model already breaks the budget: near recall 0 below 1"),
        ({"budget": Budget(far=0.5), "near_only": True}, "limits far recall, which is not measured"),
    ],
)
def test_a_budget_that_does_not_fit_is_refused_before_anything_is_written(knowing, facts, tmp_path, changed, message):
    retain = facts.near if changed.pop("near_only", False) else facts.retain
    if isinstance(changed["budget"], Budget) and changed["budget"].near:
        retain = type(facts)([*wrong(facts.near), *facts.far])
    with pytest.raises(UserError, match=message):
        unlearn(knowing, NPO(), facts.forget, retain, run=tmp_path / "run", **QUICK | changed)
    assert not (tmp_path / "run").exists()


def wrong(facts):
    return [replace(fact, answer=fact.distractors[0]) for fact in facts]


def test_stops_at_recall_and_at_chance(knowing, facts):
    options = QUICK | {"steps": 200, "text": None}
    for stop, level in ((0.6, 0.6), ("chance", 0.25)):
        result = unlearn(knowing, GradientDifference(), facts.forget, facts.retain, stop=stop, **options)
        recall = result.frame["forget_recall"]
        assert recall.iloc[-1] <= level
        assert (recall.iloc[:-1] > level).all()
        assert result.frame["step"].iloc[-1] < 200
        assert result.about["stopped"] == f"forget recall at or below {level:g}"


def test_chance_needs_distractors(knowing, facts, tmp_path):
    bare = type(facts)([replace(fact, distractors=()) for fact in facts.forget])
    with pytest.raises(UserError, match="'anna' has no distractors, so its chance level is unknown"):
        unlearn(knowing, NPO(), bare, facts.retain, stop="chance", run=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_without_progress_it_ends(knowing, facts):
    options = QUICK | {"learning_rate": 1e-12, "steps": 100}
    result = unlearn(knowing, NPO(), facts.forget, facts.retain, patience=3, **options)
    assert result.frame["step"].tolist() == [0, 2, 4, 6]
    assert result.about["stopped"] == "no progress over 3 evaluations"
    with torch.no_grad():
        for a, b in zip(hf(result.model).parameters(), hf(knowing).parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_nothing_is_done_where_nothing_is_known(knowing, facts):
    unknown = type(facts)(wrong(facts.forget))
    result = unlearn(knowing, NPO(), unknown, facts.retain, stop=0.0, **QUICK)
    assert result.frame["step"].tolist() == [0]
    assert result.about["stopped"] == "forget recall at or below 0"
    assert digest(result.model) == digest(knowing)


LONG = {"forget_token_recall": 0.9, "near_token_recall": 0.9, "far_token_recall": 0.9, "near_probability": 0.8}


def test_of_long_answers_the_probability_must_come_down_as_well():
    goal = {"forget_recall": 0.05}
    lost = START | {"forget_recall": 0.0, "forget_probability": 0.6}
    assert referee(goals=goal).done(lost) == "forget recall at or below 0.05"
    assert referee(goals=goal).done(lost | LONG) is None
    gone = lost | LONG | {"forget_probability": 0.04}
    assert referee(goals=goal).done(gone) == "forget recall at or below 0.05, forget probability at or below 0.05"


def test_of_long_answers_tokens_right_count_for_the_budget_and_probability_for_a_collapse():
    exact = START | LONG | {"near_recall": 0.0, "far_recall": 0.5}
    assert Budget(near=0.7).broken(exact, START) is None
    assert Budget(near=0.95).broken(exact, START) == "near token recall 0.9 below 0.95"
    start = START | LONG | {"far_probability": 0.9}
    judge = Referee(start, None, {}, None, 50)
    assert judge.collapsed(start | {"near_recall": 0.0}) is None
    assert judge.collapsed(start | {"near_probability": 0.01}) == "probability on near facts fell from 0.80 to 0.01"
    assert referee().collapsed(START | {"near_recall": 0.0}) == "recall on near facts fell from 0.80 to 0.00"


@pytest.mark.parametrize(("width", "graded"), [(4, False), (5, True)])
def test_answers_of_more_than_four_tokens_are_measured_by_degrees(width, graded, tmp_path):
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    model = load(tiny("llama"), tokenizer=words)
    facts = [Fact(f"w{i} w{i + 1}", " ".join(f"w{i + k}" for k in range(width)), id=f"f{i}") for i in range(10, 18)]
    forget, retain = Facts(facts[:4]), Facts([replace(fact, role="near") for fact in facts[4:]])
    options = {"steps": 3, "learning_rate": 1e-4, "batch_size": 4, "evaluate_every": 1, "progress": False}
    run = unlearn(model, NPO(), forget, retain, stop=1e-6, **options)
    assert ("forget_token_recall" in run.frame) == ("near_token_recall" in run.frame) == graded
    # No whole answer is right from the beginning, so that recall alone would end the run at once.
    assert run.frame["forget_recall"].max() == 0
    assert (run.about["stopped"] == "all steps done") == graded
    if graded:
        scores = score_answers(run.model, tokenize(forget.questions("held_out"), words))
        last = run.frame.iloc[-1]
        assert last["forget_token_recall"] == pytest.approx(float(scores.memorised.double().mean()))
        assert last["forget_probability"] == pytest.approx(float(scores.mean_logprob.exp().mean()), rel=1e-5)
