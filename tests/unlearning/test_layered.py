"""Layered Unlearning: which facts are in which stage, and what each of them counts for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from mechunlearn import dissection
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, Template
from mechunlearn.models import clone, hf
from mechunlearn.unlearning import NPO, RMU, Budget, GradientDifference, Layered, unlearn
from mechunlearn.unlearning.data import plan
from mechunlearn.unlearning.data.batches import assemble, draw
from mechunlearn.unlearning.loop import stage
from mechunlearn.unlearning.methods.layered import split
from mechunlearn.unlearning.step import Step

from .conftest import TEXT
from .test_resume import digest

QUICK = {"steps": 3, "learning_rate": 2e-3, "batch_size": 8, "evaluate_every": 3, "progress": False}


def some(count: int, folds: list[int] | None = None) -> Facts:
    numbered = folds or [None] * count
    return Facts([Fact(prompt=f"fact {n} is", answer="so", id=str(n), fold=numbered[n]) for n in range(count)])


# Folds


@given(count=st.integers(1, 40), parts=st.integers(1, 12), seed=st.integers(0, 1000))
def test_a_random_split_is_even_and_complete(count, parts, seed):
    facts = some(count)
    if count < parts:
        with pytest.raises(UserError, match=f"{count} facts cannot be split into {parts} folds"):
            split(facts, parts, seed)
        return
    found = split(facts, parts, seed)
    assert sorted(int(fact.id) for part in found for fact in part) == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert found == split(facts, parts, seed)


def test_a_random_split_follows_the_seed():
    assert split(some(20), 2, 0) != split(some(20), 2, 1)


@given(st.data())
def test_whole_folds_stay_together(data):
    folds = data.draw(st.lists(st.sampled_from([0, 2, 3, 5, 7]), min_size=5, max_size=20))
    known = sorted(set(folds))
    parts = data.draw(st.integers(1, len(known)))
    found = split(some(len(folds), folds), parts, 0)
    owners = [{fact.fold for fact in part} for part in found]
    assert all(owners)
    assert [fold for part in owners for fold in sorted(part)] == known
    assert sum(map(len, found)) == len(folds)


def test_folds_that_do_not_suffice_or_are_missing_are_named():
    with pytest.raises(UserError, match="have 2 folds, which cannot make 3; give folds=2"):
        split(some(4, [1, 1, 2, 2]), 3, 0)
    with pytest.raises(UserError, match="some facts to forget have a fold and some have none"):
        split(some(3, [1, None, 2]), 2, 0)


def stages(layered: Layered, forget: Facts, retain: Facts, seed: int = 0):
    found = list(layered.layers(forget, retain, seed))
    return [({fact.id for fact in layer.forget}, {fact.id for fact in layer.retain}) for layer in found]


def test_stages_forget_more_and_retain_less():
    forget, retain = some(4, [1, 2, 3, 3]), Facts([Fact(prompt="other", answer="so", id="kept")])
    assert stages(Layered(method=NPO(), folds=3), forget, retain) == [
        ({"0"}, {"kept", "fold 2: 1", "fold 3: 2", "fold 3: 3"}),
        ({"0", "1"}, {"kept", "fold 3: 2", "fold 3: 3"}),
        ({"0", "1", "2", "3"}, {"kept"}),
    ]
    assert stages(Layered(method=NPO(), folds=3, order=(3, 1, 2)), forget, retain) == [
        ({"2", "3"}, {"kept", "fold 2: 0", "fold 3: 1"}),
        ({"2", "3", "0"}, {"kept", "fold 3: 1"}),
        ({"2", "3", "0", "1"}, {"kept"}),
    ]
    twice = stages(Layered(method=NPO(), folds=2, repeat=2), forget, retain)
    assert twice[0] == twice[1] != twice[2] == twice[3]
    assert stages(Layered(method=NPO(), folds=1, repeat=3), forget, retain) == [({"0", "1", "2", "3"}, {"kept"})] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 0}, "folds must be at least 1"),
        ({"folds": 2, "order": (1, 1)}, "order must name the folds 1 to 2 once each"),
        ({"folds": 2, "forget": (1.0,)}, "forget has 1 weights for 2 stages"),
        ({"retain": float("nan")}, "retain must be a number or tuple"),
        ({"decay": 1.5}, "decay must be between 0 and 1"),
        ({"stage_stop": 2.0}, "stage_stop is a recall between 0 and 1"),
        ({"stage_stop": "never"}, "stage_stop is a recall between 0 and 1, or 'chance'"),
    ],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(UserError, match=message):
        Layered(method=NPO(), **arguments)


def test_two_templates_cannot_be_layered():
    other = Facts(some(1).items, template=Template(prompt="Q: {prompt}"))
    with pytest.raises(UserError, match="different templates"):
        list(Layered(method=NPO(), folds=2).layers(some(4), other, 0))
    list(Layered(method=NPO(), folds=1).layers(some(4), other, 0))


# The coefficient law


class Named(GradientDifference):
    """Forget and retain terms are sums of one variable a fact, so that a gradient is what a fact counts for."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(forget_weight=1.0, retain_weight=1.0)
        object.__setattr__(self, "dials", {name: torch.zeros((), requires_grad=True) for name in names})

    def _sum(self, step: Step, kind: str) -> Tensor:
        part = step._parts[kind]
        names = [name.split("#")[0].split(": ")[-1] for name in part.tokens.fact_ids]
        values = torch.stack([self.dials[name] for name in names])
        return (part.weight * values).sum() / part.divisors.facts

    def forget(self, step: Step) -> Tensor:
        return self._sum(step, "forget")

    def retention(self, step: Step) -> dict[str, Tensor]:
        return {kind: self._sum(step, kind) for kind in ("retain",)}


@pytest.mark.parametrize("roles", [(None,), ("near", "far")])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_what_a_fold_counts_for_is_the_coefficient_law(knowing, facts, k, roles):
    """forget (α_i/i)·δ^(i−j), retain ρ_i/(k−i), R_i, each times the mean over the fold's (the retain set's) facts."""
    alphas, rhos, bases = (tuple(0.5 + 0.25 * n * scale for n in range(k)) for scale in (1, 2, 3))
    layered = Layered(
        method=GradientDifference(), folds=k, decay=0.3, forget=alphas, retain=rhos, base=bases, order=None
    )
    people = ["anna", "berta", "carla", "dora"]
    forget = Facts([replace(facts.forget[n], fold=n + 1, paraphrases=()) for n in range(k)])
    retain = Facts([replace(fact, role=roles[n % len(roles)]) for n, fact in enumerate(facts.retain[:4])])
    assert len(roles) == 1 or len(retain.near) == len(retain.far) == 2
    method = Named(people + [fact.id for fact in retain])
    for layer in layered.layers(forget, retain, 0):
        i = layer.number
        sources = plan.sources_of(knowing, method, layer, None, 0, plain=False)
        groups = len(sources.retain.groups)
        size = len(sources.forget.groups) * groups * 2  # every row of a group equally often in sixty steps
        for dial in method.dials.values():
            dial.grad = None
        steps = 0
        for drawn, _ in zip(draw(sources, size, 0), range(60), strict=False):
            for piece in assemble(sources, drawn, 1):
                method.loss(Step(knowing, knowing, piece))["loss"].backward()
            steps += 1
        got = {name: 0.0 if dial.grad is None else dial.grad.item() / steps for name, dial in method.dials.items()}
        for j in range(1, k + 1):
            fold = got[people[j - 1]]
            if j <= i:
                assert fold == pytest.approx(alphas[i - 1] / i * 0.3 ** (i - j), rel=1e-4)
            else:
                assert fold == pytest.approx(rhos[i - 1] / (k - i), rel=1e-4)
        assert sum(got[fact.id] for fact in retain) == pytest.approx(bases[i - 1], rel=1e-4)


# Runs


def test_one_fold_is_the_plain_method_bit_for_bit(knowing, facts):
    plain = unlearn(knowing, NPO(), facts.forget, facts.retain, text=TEXT, retain_text=TEXT, **QUICK)
    layered = unlearn(
        knowing, Layered(method=NPO(), folds=1), facts.forget, facts.retain, text=TEXT, retain_text=TEXT, **QUICK
    )
    assert digest(layered.model) == digest(plain.model)
    for column in set(plain.frame) - {"seconds"}:
        assert layered.frame[column].equals(plain.frame[column]), column


def test_repeat_starts_the_plain_method_again(knowing, facts):
    first = unlearn(knowing, NPO(), facts.forget, facts.retain, **QUICK)
    second = unlearn(first.model, NPO(), facts.forget, facts.retain, **QUICK)
    both = unlearn(knowing, Layered(method=NPO(), folds=1, repeat=2), facts.forget, facts.retain, **QUICK)
    assert digest(both.model) == digest(second.model)
    assert [digest(model) for model in both.stages] == [digest(first.model), digest(second.model)]
    assert both.frame["stage"].tolist() == [1, 1, 2, 2]
    assert both.frame["step"].tolist() == [0, 3, 3, 6]
    assert both.frame["tokens"].is_monotonic_increasing
    assert both.frame["seconds"].is_monotonic_increasing
    assert both.about["stopped"] == "stage 1: all steps done; stage 2: all steps done"
    assert both.about["step"] == 6


def test_stages_are_kept_and_one_dissects_them(knowing, facts):
    result = unlearn(knowing, Layered(method=RMU(), folds=2), facts.forget, facts.retain, **QUICK)
    assert len(result.stages) == 2
    assert digest(result.stages[1]) == digest(result.model)
    assert len({digest(model) for model in (knowing, *result.stages)}) == 3
    found = dissection.dissect(knowing, result.stages[0], facts.forget, sites=("value_vectors",), progress=False)
    assert len(found.frame)
    assert {"fold_1_recall", "fold_2_recall"} <= set(result.frame)
    with pytest.raises(AssertionError):
        assert hf(result.model) is hf(result.stages[0])


def test_retain_targets_are_those_of_the_start_of_the_stage(knowing, facts, monkeypatch):
    """The reference model of each stage is the model before it, weight for weight; not the original."""
    seen = []

    class Watching(NPO):
        def retention(self, step: Step) -> dict[str, Tensor]:
            seen.append(digest(step._start))
            return super().retention(step)

    method = Watching(retain="kl")
    result = unlearn(knowing, Layered(method=method, folds=2), facts.forget, facts.retain, **QUICK)
    assert seen == [digest(knowing)] * 3 + [digest(result.stages[0])] * 3
    # The first loss of a stage is measured against its own start: nothing has been lost yet, and β·(S − S⁰) is zero.
    options = QUICK | {"steps": 1, "evaluate_every": 1}
    frame = unlearn(knowing, Layered(method=method, folds=2), facts.forget, facts.retain, **options).frame
    firsts = frame[frame["step"] > 0].dropna(subset="loss")
    assert firsts["loss_retain"].tolist() == pytest.approx([0, 0], abs=1e-6)
    expected = 2 / 0.1 * torch.tensor(2.0).log().item()
    # Weighted by δ⁰ in stage 1 and by (δ¹ + δ⁰)/2 in stage 2.
    assert firsts["loss_forget"].tolist() == pytest.approx([expected, expected * 0.55], rel=1e-4)


def test_disruption_counts_from_the_first_model(knowing, facts):
    layered = Layered(method=GradientDifference(), folds=2)
    options = QUICK | {"steps": 6, "evaluate_every": 2, "budget": 0.05, "learning_rate": 6e-3}
    frame = unlearn(knowing, layered, facts.forget, facts.retain, text=TEXT, **options).frame
    second = frame[frame["stage"] == 2]
    assert second["text_kl"].iloc[0] > 0
    assert frame["inside"].tolist() == (frame["text_kl"] <= 0.05).tolist()
    kept = frame[(frame["stage"] == 1) & frame["inside"]].iloc[-1]
    assert second["step"].iloc[0] == kept["step"]
    assert second["text_kl"].iloc[0] == pytest.approx(kept["text_kl"])


class Stubborn(GradientDifference):
    rolls_back = False


def test_a_stage_that_begins_outside_the_budget_ends_at_once(knowing, facts, tmp_path):
    layered = Layered(method=Stubborn(), folds=2)
    options = QUICK | {"budget": 1e-4, "learning_rate": 6e-3, "text": TEXT}
    result = unlearn(knowing, layered, facts.forget, facts.retain, run=tmp_path, **options)
    assert "; stage 2: budget reached before: text KL" in result.about["stopped"]
    assert result.frame["inside"].tolist() == [True, False, False]
    assert result.frame["stage"].tolist() == [1, 1, 2]


def test_a_stage_ends_when_its_newest_fold_is_forgotten(knowing, facts):
    layered = Layered(method=GradientDifference(), folds=2, stage_stop=0.0, decay=1.0)
    options = QUICK | {"steps": 100, "evaluate_every": 1, "learning_rate": 4e-3}
    result = unlearn(knowing, layered, facts.forget, facts.retain, stop=0.0, **options)
    for number, frame in result.frame.groupby("stage"):
        recall = frame[f"fold_{number}_recall"]
        assert recall.iloc[-1] == 0
        assert len(frame) < 100
    assert result.about["stopped"] == (
        "stage 1: fold 1 recall at or below 0; stage 2: fold 2 recall at or below 0, forget recall at or below 0"
    )


def test_chance_of_a_stage_is_that_of_its_newest_fold(facts):
    people = list(facts.forget)
    uneven = Facts([replace(people[0], fold=1, distractors=("green",)), replace(people[1], fold=2), people[2]][:2])
    layered = Layered(method=NPO(), folds=2, stage_stop="chance")
    options = stage.Options(steps=1)
    goals = [plan._goals(layered, options, layer, last=False) for layer in layered.layers(uneven, facts.retain, 0)]
    assert goals == [{"fold_1_recall": 1 / 2}, {"fold_2_recall": 1 / 4}]


def test_facts_that_are_numbered_alike_or_called_to_be_forgotten_elsewhere(knowing, facts):
    """Forget and retain sets from two files; what is retained here is a fold of another forget set."""
    forget = Facts([replace(fact, id="", fold=None) for fact in facts.forget])
    retain = Facts([replace(fact, id="", role="forget", fold=place % 2) for place, fact in enumerate(facts.retain)])
    result = unlearn(knowing, Layered(method=NPO(), folds=4), forget, retain, **QUICK | {"steps": 1})
    assert len(result.stages) == 4
    assert result.frame["retain_recall"].iloc[0] == 1
    plain = unlearn(knowing, NPO(), forget, retain, **QUICK)
    assert "retain_recall" in plain.frame


def test_fewer_facts_than_folds(knowing, facts, tmp_path):
    one = Facts([facts.forget[0]])
    with pytest.raises(UserError, match="1 facts cannot be split into 2 folds"):
        unlearn(knowing, Layered(method=NPO(), folds=2), one, facts.retain, run=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
    result = unlearn(knowing, Layered(method=NPO(), folds=1), one, facts.retain, **QUICK)
    assert digest(result.model) == digest(unlearn(knowing, NPO(), one, facts.retain, **QUICK).model)


def test_the_model_before_is_not_changed(knowing, facts):
    model = clone(knowing)
    unlearn(model, Layered(method=NPO(), folds=2), facts.forget, facts.retain, **QUICK)
    assert digest(model) == digest(knowing)


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "gone on with"])
def test_a_stage_keeps_the_step_size_that_the_one_before_came_down_to(knowing, facts, tmp_path, monkeypatch, kept):
    """What was too long for the budget once is not tried again; the stages share the halvings."""
    layered = Layered(method=GradientDifference(), folds=2)
    budget = Budget(kl=0.02, halvings=3)
    options: dict[str, Any] = QUICK | {
        "steps": 8,
        "evaluate_every": 2,
        "budget": budget,
        "learning_rate": 6e-3,
        "text": TEXT,
    }
    run = tmp_path / "run" if kept else None
    if run is not None:  # the second stage begins in another call, from what the first has written
        with monkeypatch.context() as cut:
            cut.setattr(plan.Stage, "run", cut_off(plan.Stage.run))
            with pytest.raises(KeyboardInterrupt):
                unlearn(knowing, layered, facts.forget, facts.retain, run=run, **options)
    frame = unlearn(knowing, layered, facts.forget, facts.retain, run=run, **options).frame
    first, second = (frame[frame["stage"] == place] for place in (1, 2))
    assert first["scale"].iloc[0] == 1
    assert first["scale"].iloc[-1] < 1
    assert second["scale"].iloc[0] == first["scale"].iloc[-1]
    assert frame["scale"].is_monotonic_decreasing
    assert frame["scale"].min() >= 2**-budget.halvings
    # After so many halvings one more crossing ends a stage.
    assert (~first["inside"]).sum() + (~second["inside"]).sum() <= budget.halvings + 2


def cut_off(run):
    """A stage that is interrupted when it is the second."""

    def go(self):
        if self.baseline is not None:
            raise KeyboardInterrupt
        return run(self)

    return go
