"""Relearning with facts of one's own."""

from dataclasses import replace

import pandas as pd
import pytest

from mechunlearn import Attacks, Facts, Relearn, UserError, relearn
from mechunlearn.evaluation import recall
from mechunlearn.facts import PROMPTS, tokenize
from mechunlearn.models import fingerprint

from .toys import make_facts, toy

FACTS = make_facts()
TRAIN, TEST = FACTS.where(fold=0), FACTS.where(fold=1)


def test_before_the_first_epoch_nothing_has_changed():
    model = toy()
    mark = fingerprint(model)
    found = relearn(model, TRAIN, TEST, settings=Relearn(epochs=1), never_knew=model, progress=False)
    first = found.frame[(found.frame["attack"] == "relearn") & (found.frame["step"] == 0)]
    plain = found.frame[found.frame["attack"] == "none"]
    assert first["probability"].tolist() == plain["probability"].tolist()
    assert set(found.frame["fact"]) == {fact.id for fact in TEST}
    assert fingerprint(model) == mark
    (excess,) = found.summary().itertuples()
    assert excess.excess == 0 and excess.excess_low == -excess.excess_high < 0  # few facts leave doubt on both sides
    assert found.summary("probability")[["excess", "excess_low", "excess_high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_what_is_asked_after_an_epoch_is_the_trained_model():
    settings = Relearn(epochs=2, learning_rate=1e-2)
    found = relearn(toy(), TRAIN, TEST, settings=settings, seed=3, progress=False)
    *_, (_, last) = settings.learn(toy(), TRAIN, 3)
    told = found.frame[found.frame["step"] == 2].set_index("question")["correct"]
    questions = TEST.questions()
    assert told[[fact.id for fact in questions]].tolist() == recall(last, tokenize(questions, last.tokenizer)).tolist()


def test_whatever_its_role_what_is_asked_counts_as_forgotten():
    near = TEST.with_items(replace(fact, role="near") for fact in TEST)
    found = relearn(toy(), TRAIN, near, settings=Relearn(epochs=0), progress=False)
    assert len(found.summary()) == 1


@pytest.mark.parametrize("prompts", PROMPTS)
def test_what_is_trained_does_not_depend_on_what_is_asked(prompts):
    own = relearn(toy(), TRAIN, TEST, settings=Relearn(epochs=1), prompts="own", progress=False).frame
    found = relearn(toy(), TRAIN, TEST, settings=Relearn(epochs=1), prompts=prompts, progress=False)
    assert list(dict.fromkeys(found.frame["question"])) == [fact.id for fact in TEST.questions(prompts)]
    assert found.about["settings"]["prompts"] == prompts
    both = own.merge(found.frame, on=["attack", "step", "question"], suffixes=("", "_other"))
    assert both["probability"].to_list() == pytest.approx(both["probability_other"].to_list(), rel=1e-4)
    assert len(both) == (0 if prompts == "held_out" else len(own))


def test_an_interrupted_run_goes_on_with_the_model_that_is_missing(tmp_path, monkeypatch):
    options = {"settings": Relearn(epochs=1), "never_knew": toy(seed=1), "progress": False}
    whole = relearn(toy(), TRAIN, TEST, **options)
    learn, learned = Relearn.learn, []

    def watched(self, model, *rest):
        learned.append(model)
        if model is toy(seed=1) and len(learned) == 2:
            raise KeyboardInterrupt
        yield from learn(self, model, *rest)

    monkeypatch.setattr(Relearn, "learn", watched)
    with pytest.raises(KeyboardInterrupt):
        relearn(toy(), TRAIN, TEST, run=tmp_path / "run", **options)
    with pytest.raises(UserError, match="not finished"):
        Attacks.load(tmp_path / "run")
    again = relearn(toy(), TRAIN, TEST, run=tmp_path / "run", **options)
    assert learned == [toy(), toy(seed=1), toy(seed=1)]  # what was finished is not done again
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    assert again.about == whole.about
    relearn(toy(), TRAIN, TEST, run=tmp_path / "run", **options)
    assert len(learned) == 3


@pytest.mark.parametrize(
    "train, test, message",
    [
        (TRAIN, TRAIN, "trained and asked"),
        (TRAIN, TRAIN.questions(), "trained and asked"),
        (TRAIN, TEST.with_items([replace(TRAIN[0], id="other", subject=None)]), "trained and asked"),
        (Facts([]), TEST, "no facts to train on"),
        (TRAIN, Facts([]), "no facts to ask for"),
    ],
)
def test_wrong_facts(train, test, message):
    with pytest.raises(UserError, match=message):
        relearn(toy(), train, test, progress=False)
