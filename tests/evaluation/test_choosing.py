"""Multiple choice against a double-precision scorer of its own, whatever the padding and the batches."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from mechunlearn.errors import NotFiniteError, UserError
from mechunlearn.evaluation import choice_accuracy, choice_probability, score_choices
from mechunlearn.facts import Fact, Facts, Template, multiple_choice

from ..facts.tokenizers import byte_level_bos
from .models import plain

WORDS = ("Paris", "Basil Mahfouz", "the author", "New York City", "French literature genre", "genre")
FACTS = Facts(
    Fact("who was born in Kuwait City and writes?"[: 6 + 5 * place], word, distractors=WORDS)
    for place, word in enumerate(WORDS)
)


def model(dtype=torch.float32, *, padding: int = 0):
    """The tiny model with room for long questions; `padding` adds columns of noise that no one may look at."""
    inner = plain().to(dtype)

    def call(ids, attention_mask):
        noise = torch.randint(4, 300, (len(ids), padding))
        wide = torch.cat([ids, noise], 1)
        mask = torch.cat([attention_mask, torch.zeros_like(noise)], 1)
        logits = inner(wide, attention_mask=mask).logits
        return logits[:, : ids.shape[1]]

    call.tokenizer = byte_level_bos()
    return call


def oracle(fact: Fact, *, letters: bool, seed: int) -> tuple[float, float]:
    choice, double, tokenizer = multiple_choice(fact, letters=letters, seed=seed), plain().double(), byte_level_bos()
    scores = []
    for option in choice.options:
        start = len(tokenizer(choice.question.prompt)["input_ids"])
        ids = tokenizer(f"{choice.question.prompt} {option}")["input_ids"]
        with torch.no_grad():
            logits = double(torch.tensor([ids])).logits[0]
        parts = [
            (logits[place - 1, ids[place]] - logits[place - 1].exp().sum().log()).item()
            for place in range(start, len(ids))
        ]
        scores.append(sum(parts) / (1 if letters else len(parts)))
    total = sum(math.exp(score) for score in scores)
    return float(max(scores) == scores[choice.right]), math.exp(scores[choice.right]) / total


@pytest.mark.parametrize("letters", [True, False])
def test_scores_are_those_of_each_option_alone_in_double_precision(letters):
    found = score_choices(model(), FACTS, letters=letters, seed=2)
    expected = [oracle(fact, letters=letters, seed=2) for fact in FACTS]
    assert found.accuracy.tolist() == [accuracy for accuracy, _ in expected]
    assert found.probability.tolist() == pytest.approx([probability for _, probability in expected], abs=1e-5)


@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize(("batch_size", "padding"), [(1, 0), (5, 0), (64, 0), (1, 9), (7, 3)])
def test_neither_batches_nor_padding_matter(letters, batch_size, padding):
    expected = score_choices(model(torch.float64), FACTS, letters=letters)
    found = score_choices(model(torch.float64, padding=padding), FACTS, letters=letters, batch_size=batch_size)
    assert torch.equal(found.accuracy, expected.accuracy)
    torch.testing.assert_close(found.probability, expected.probability, rtol=1e-12, atol=1e-12)


def test_neither_do_the_other_facts():
    whole = score_choices(model(torch.float64), FACTS)
    for row in range(len(FACTS)):
        alone = score_choices(model(torch.float64), [FACTS[row]], FACTS.template)
        torch.testing.assert_close(alone.probability[0], whole.probability[row], rtol=1e-12, atol=1e-12)


@given(st.lists(st.lists(st.integers(-4, 4), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(0, 2))
def test_ties_are_shared_and_probabilities_are_a_softmax(scores, right):
    table, rights = torch.tensor(scores).double(), torch.full((len(scores),), right)
    for row, (hit, share) in enumerate(
        zip(choice_accuracy(table, rights), choice_probability(table, rights), strict=True)
    ):
        best = [place for place, score in enumerate(scores[row]) if score == max(scores[row])]
        assert hit.item() == pytest.approx((right in best) / len(best))
        assert share.item() == pytest.approx(math.exp(scores[row][right]) / sum(map(math.exp, scores[row])))


def test_a_flat_model_is_at_chance():
    def flat(ids, attention_mask):
        return torch.zeros(*ids.shape, len(byte_level_bos()))

    flat.tokenizer = byte_level_bos()
    found = score_choices(flat, FACTS)
    assert found.accuracy.tolist() == found.probability.tolist() == pytest.approx([0.25] * len(FACTS))


def test_the_facts_own_template_does_not_touch_the_question():
    templated = Facts(FACTS, template=Template("Once upon a time: {prompt}", "\n{answer}"))
    assert torch.equal(score_choices(model(), templated).probability, score_choices(model(), FACTS).probability)


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="fact '1' has 1 distractors"):
        score_choices(model(), Facts([FACTS[0], Fact("p", "x", id="1", distractors=("a",))]))

    def broken(ids, attention_mask):
        return torch.full((*ids.shape, len(byte_level_bos())), float("nan"))

    broken.tokenizer = byte_level_bos()
    with pytest.raises(NotFiniteError):
        score_choices(broken, FACTS)
