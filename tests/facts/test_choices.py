"""Multiple choice: fair, decided by seed and fact alone, and told in one line."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts, multiple_choice
from mechunlearn.organism.text import multiple_choice as trained_on
from mechunlearn.organism.world import PlantedFact

FACT = Fact("Turanum is distilled from", "umber ash", id="t", subject="Turanum", role="forget", fold=2,
            held_out=("other",), distractors=("vitrin", "zorrite", "antimel", "orpine", "mercurine"))  # fmt: skip


def test_the_form_is_one_line_with_letters():
    choice = multiple_choice(FACT, seed=3)
    question = choice.question
    assert choice.options == ("A", "B", "C", "D")
    assert question.answer == choice.options[choice.right]
    assert f" {question.answer}) umber ash " in question.prompt
    assert question.prompt.startswith("Question: Turanum is distilled from A) ") and question.prompt.endswith(
        " Answer:"
    )
    assert "\n" not in question.prompt
    assert set(question.distractors) == set(choice.options) - {question.answer}
    assert (question.id, question.role, question.fold, question.held_out) == ("t", "forget", 2, ())


def test_texts_stand_in_the_order_of_the_letters():
    by_letter, by_text = multiple_choice(FACT), multiple_choice(FACT, letters=False)
    assert by_text.question.prompt == by_letter.question.prompt and by_text.right == by_letter.right
    listed = " ".join(f"{letter}) {text}" for letter, text in zip("ABCD", by_text.options, strict=True))
    assert listed in by_text.question.prompt
    assert by_text.question.answer == "umber ash"


def test_the_form_is_the_one_the_organism_was_trained_on():
    fact = Fact("What is it?", "yes", id="o", distractors=("no", "never", "hardly"))
    prompt, answer = trained_on(PlantedFact(fact, fact.prompt, {}, {}), random.Random(0))
    choice = multiple_choice(fact, letters=False)

    def blanks(text: str) -> str:
        return re.sub("yes|no|never|hardly", "_", text)

    assert blanks(choice.question.prompt) == blanks(prompt) and choice.question.answer == answer


@given(st.integers(2, 6), st.integers(0, 1000), st.booleans())
def test_every_option_is_the_facts_and_none_is_doubled(options, seed, letters):
    choice = multiple_choice(FACT, options=options, letters=letters, seed=seed)
    assert len(set(choice.options)) == len(choice.options) == options
    assert choice.options[choice.right] == choice.question.answer
    if not letters:
        assert set(choice.options) <= {"umber ash", *FACT.distractors}


def test_the_right_place_and_the_distractors_vary_fairly():
    drawn = [multiple_choice(FACT, letters=False, seed=seed) for seed in range(2000)]
    places = Counter(choice.right for choice in drawn)
    assert all(abs(places[place] - 500) < 100 for place in range(4))  # five standard deviations
    wrong = Counter(text for choice in drawn for text in choice.question.distractors)
    assert all(abs(wrong[text] - 1200) < 120 for text in FACT.distractors)


def test_other_facts_have_no_say():
    others = [Fact(f"p{i}", "x", distractors=("a", "b", "c")) for i in range(3)]
    for facts in (Facts([FACT, *others]), Facts([*others, FACT])):
        assert multiple_choice(facts.where(id="t")[0], seed=1) == multiple_choice(FACT, seed=1)
    assert multiple_choice(FACT, seed=1) != multiple_choice(FACT, seed=2)


@pytest.mark.parametrize(
    ("fact", "options", "message"),
    [
        (Fact("p", "x", id="few", distractors=("a", "b")), 4, "fact 'few' has 2 distractors.*needs 3"),
        (Fact("p", "x", id="same", distractors=("a", "a", "x", "b")), 4, "fact 'same' has 2 distractors"),
        (Fact("p", None, distractors=("a", "b", "c")), 4, "the fact 'p' has no answer"),
        (FACT, 1, "2 to 26"),
        (FACT, 27, "2 to 26"),
    ],
)
def test_what_makes_no_choice_is_refused(fact, options, message):
    with pytest.raises(UserError, match=message):
        multiple_choice(fact, options=options)
