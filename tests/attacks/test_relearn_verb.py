"""Relearning with facts of one's own."""

from dataclasses import replace

import pytest

from mechunlearn import Facts, Relearn, UserError, relearn
from mechunlearn.evaluation import recall
from mechunlearn.facts import tokenize
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
    assert found.summary()[["excess", "excess_low", "excess_high"]].to_numpy().tolist() == [[0, 0, 0]]


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
