"""Asking in other words: what a question may hold, and what it must not."""

import logging
import re

import pytest
import torch

from mechunlearn.attacks.kinds.prompts import FRAMES, WORDED, Prompts
from mechunlearn.attacks.splits import groups
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, Template
from mechunlearn.models import fingerprint

from .toys import SUBJECTS, given, logits, make_facts, toy


def attempts(frame: str, facts: Facts | None = None, seed: int = 0, **settings):
    return list(Prompts(frames=(frame,), **settings).attempts(toy(), given(facts=facts, seed=seed)))


def named(text: str) -> set[str]:
    """The subjects that a text names."""
    return set(text.replace(".", " ").split()) & set(SUBJECTS)


@pytest.mark.parametrize("folds", [4, 2, None])
@pytest.mark.parametrize("shots", [1, 3])
def test_examples_come_from_other_folds_and_state_their_answers(folds, shots):
    facts = make_facts(folds)
    (attempt,) = attempts("few-shot", facts, shots=shots)
    part_of = {fact.subject: name for name, part in groups(facts).items() for fact in part}
    known = {question.id: question for question in facts.questions()}
    assert sorted(question.id for question in attempt.facts) == sorted(known)
    for question in attempt.facts:
        plain = known[question.id]
        assert question.prompt.endswith(plain.prompt) and question.answer == plain.answer
        shown = question.prompt.removesuffix(plain.prompt)
        stated = [fact for fact in facts if f"{fact.prompt} {fact.answer}. " in shown]
        assert len(stated) == shots == shown.count(".")
        assert len({fact.id for fact in stated}) == shots
        assert part_of[plain.subject] not in {part_of[name] for name in named(shown)}


def test_examples_follow_from_the_seed():
    first, again, other = (attempts("few-shot", seed=seed, shots=2)[0].facts for seed in (0, 0, 1))
    assert first.hash == again.hash != other.hash


def test_examples_wear_the_template():
    facts = make_facts(template=Template("Question : {prompt}\nAnswer :", " {answer} ."))
    (attempt,) = attempts("few-shot", facts, shots=1)
    lines = attempt.facts[0].prompt.split("\n")
    assert [line.split(":")[0].strip() for line in lines] == ["Question", "Answer", "", "Question", "Answer"]
    assert lines[1].endswith(" .") and lines[4] == "Answer :"
    assert attempt.facts.template == Template("{prompt}", " {answer} .")


def test_the_subject_s_other_facts_are_stated_and_loners_left_out():
    facts = make_facts()
    loner = Fact("the house of nobody is", "red", id="loner", subject="nobody", role="forget", fold=0)
    nameless = Fact("the house is", "red", id="nameless", role="forget", fold=0)
    (attempt,) = attempts("subject", Facts([*facts, loner, nameless], template=facts.template))
    assert {question.id.rpartition("#h")[0] for question in attempt.facts} == {fact.id for fact in facts}
    known = {question.id: question for question in facts.questions()}
    for question in attempt.facts:
        plain = known[question.id]
        (other,) = (fact for fact in facts if fact.subject == plain.subject and fact.relation != plain.relation)
        assert question.prompt == f"{other.prompt} {other.answer}. {plain.prompt}"


def test_as_trained_asks_the_prompt_and_the_paraphrases():
    facts = make_facts()
    (attempt,) = attempts("as trained", facts)
    found = {(question.id.rpartition("#h")[0], question.prompt) for question in attempt.facts}
    assert found == {(fact.id, prompt) for fact in facts for prompt in (fact.prompt, *fact.paraphrases)}


def test_the_beginning_of_the_answer_is_given_away():
    found = attempts("prefix", prefixes=(1, 2))
    assert [attempt.given_tokens for attempt in found] == [1, 2]
    assert all(attempt.facts.hash == make_facts().questions().hash for attempt in found)


def test_frames_hold_the_held_out_prompt():
    plain = [question.prompt for question in make_facts().questions()]
    for frame, wordings in [*WORDED.items(), ("{prompt} says", ("{prompt} says",))]:
        found = attempts(frame)
        assert [attempt.setting for attempt in found] == list(wordings)
        for attempt, words in zip(found, wordings, strict=True):
            before, after = words.split("{prompt}")
            assert [question.prompt for question in attempt.facts] == [before + text + after for text in plain]


def test_all_frames_by_default_and_the_model_is_left_alone():
    model, mark, plain = toy(), fingerprint(toy()), logits(toy())
    found = list(Prompts().attempts(model, given()))
    assert len({attempt.setting for attempt in found}) == len(found) == len(FRAMES) + 2
    assert all(attempt.model is model for attempt in found)
    assert fingerprint(model) == mark and torch.equal(logits(model), plain)


def test_frames_that_the_facts_do_not_allow_are_left_out_aloud(caplog):
    alone = Facts([Fact("the house is", "red", role="forget")])
    with caplog.at_level(logging.WARNING):
        found = list(Prompts().attempts(toy(), given(facts=alone)))
    assert {attempt.setting for attempt in found} == {
        "as trained",
        *(words for own in WORDED.values() for words in own),
    }
    assert [word in caplog.text for word in ("few-shot", "subject", "no answer")] == [True] * 3
    with pytest.raises(UserError, match="allows none of the frames few-shot"):
        attempts("few-shot", alone)


def test_a_frame_that_grows_too_long_is_left_out_and_named(caplog):
    """One long prompt, and all the other frames are still tried."""
    attack = Prompts(frames=("as trained", "few-shot"), shots=12)
    found = [attempt.setting for attempt in attack.attempts(toy(), given())]
    assert found == ["as trained"] and "few-shot" not in found
    assert "left out: fact" in caplog.text and "more than the context of 64" in caplog.text
    (note,) = attack.notes(toy(), given())
    assert re.fullmatch(r"prompts: 'after 12 facts of .*' is left out, where fact .* of 64", note)
    assert Prompts(frames=("as trained",)).notes(toy(), given()) == []


@pytest.mark.parametrize("wrong", [{"frames": ("flattery",)}, {"frames": ()}, {"shots": 0}, {"prefixes": (0,)}])
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match="prompts"):
        Prompts(**wrong)
