"""What a measure cannot take is left out and said where nobody asked for the measure; asked for, it is refused."""

import pytest

from mechunlearn import Fact, Facts, evaluate
from mechunlearn.errors import UserError
from mechunlearn.models import load

from ..architectures import tiny
from ..pairs import word_level


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A context of 64 tokens, one token a word."""
    signs = ["Question:", "Answer:", "A.", "B.", "C.", "D.", "A", "B", "C", "D"]
    words = word_level([f"w{i}" for i in range(3, 86)] + signs, tmp_path_factory.mktemp("words"))
    return load(tiny("llama"), tokenizer=words)


def fact(name, length=2, width=1, wrong=3):
    """A prompt of so many words, answers of so many."""
    answers = [" ".join([f"w{10 * (k + 1)}"] * width) for k in range(wrong + 1)]
    return Fact(" ".join(["w5"] * length), answers[0], id=name, distractors=tuple(answers[1:]))


def test_facts_whose_choice_is_longer_than_the_context_are_left_out_of_it_alone(model):
    facts = Facts([fact("short"), fact("long", 40, 10), fact("few", wrong=1), fact("none", wrong=0)])
    found = evaluate(model, facts, letters=False, progress=False)
    frame = found.frame.set_index("fact")
    assert frame["answer_logprob"].notna().all()
    assert frame["choice_accuracy"].notna().to_dict() == {"short": True, "long": False, "few": False, "none": False}
    assert frame["truth_ratio_geometric"].notna().to_dict() == {"short": True, "long": True, "few": True, "none": False}
    assert found.about["notes"][:3] == [
        "multiple choice: 1 of 4 questions are left out (more tokens than the context of 64)",
        "multiple choice: 2 of 4 questions are left out (fewer than 3 distractors)",
        "the truth ratio: 1 of 4 questions are left out (fewer than 1 distractors)",
    ]
    assert "Mind: multiple choice: 1 of 4" in repr(found) and "Mind: multiple choice" in found._repr_html_()


def test_where_no_choice_fits_the_measure_is_absent(model):
    found = evaluate(model, Facts([fact("long", 40, 10)]), letters=False, progress=False)
    assert not {"choice_accuracy"} & set(found.summary()["measure"])
    assert {"recall", "answer_logprob"} <= set(found.summary()["measure"])


def test_a_measure_that_was_asked_for_is_not_thinned_out(model):
    with pytest.raises(UserError, match="more than the context of 64"):
        evaluate(model, Facts([fact("long", 40, 10)]), letters=False, measures=["choice_accuracy"], progress=False)
    with pytest.raises(UserError, match="more than the context of 64"):
        evaluate(model, Facts([fact("too long", 80)]), progress=False)


def test_generations_that_do_not_fit_are_left_out(model):
    facts = Facts([fact("short"), fact("long", 40, 2)])
    found = evaluate(model, facts, before=model, max_new_tokens=30, letters=False, progress=False)
    assert found.frame["rouge_l"].notna().tolist() == [True, False]
    assert "generations: 1 of 2 questions are left out (more tokens than the context of 64)" in found.about["notes"]
