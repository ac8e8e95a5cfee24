"""The truth ratio against probabilities multiplied out, in double precision."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.evaluation import closer_to_one, log_truth_ratio, score_truth, true_better
from mechunlearn.evaluation.truth import WRONG
from mechunlearn.facts import Fact, Facts, Template

from ..facts.tokenizers import byte_level_bos
from .models import bridge, plain

LOGPROBS = st.floats(-30, 0)


@given(LOGPROBS, st.lists(LOGPROBS, min_size=1, max_size=6))
def test_the_two_means_are_what_their_names_say(right, wrong):
    inputs = (torch.tensor(right, dtype=torch.float64), torch.tensor(wrong, dtype=torch.float64))
    probabilities = [math.exp(one) for one in wrong]
    geometric = math.prod(probabilities) ** (1 / len(wrong)) / math.exp(right)
    arithmetic = sum(probabilities) / len(wrong) / math.exp(right)
    assert log_truth_ratio(*inputs, "geometric").exp().item() == pytest.approx(geometric, rel=1e-6)
    assert log_truth_ratio(*inputs, "arithmetic").exp().item() == pytest.approx(arithmetic, rel=1e-6)
    assert geometric <= arithmetic * (1 + 1e-9)


@given(st.floats(1e-6, 1e6))
def test_aggregates(ratio):
    log_ratio = torch.tensor([ratio], dtype=torch.float64).log()
    assert closer_to_one(log_ratio).item() == pytest.approx(min(ratio, 1 / ratio))
    assert true_better(log_ratio).item() == pytest.approx(max(0.0, 1 - ratio), abs=1e-9)


def test_extremes_do_not_overflow():
    far = torch.tensor([-4000.0, 4000.0]).double()
    assert closer_to_one(far).tolist() == [0, 0]
    assert true_better(far).tolist() == [1, 0]


def mean_probability(prompt: str, answer: str) -> float:
    """exp of the mean log-probability per answer token, one row, double precision."""
    tokenizer, double = byte_level_bos(), plain().double()
    start = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(f"{prompt} {answer}")["input_ids"]
    with torch.no_grad():
        probabilities = double(torch.tensor([ids])).logits[0].softmax(-1)
    parts = [math.log(probabilities[place - 1, ids[place]].item()) for place in range(start, len(ids))]
    return math.exp(sum(parts) / len(parts))


@pytest.mark.parametrize(
    ("others", "asked"),
    [
        ({"held_out": ("who writes?",), "paraphrases": ("the author",)}, "who writes?"),
        ({"paraphrases": ("the author", "x")}, "the author"),
        ({}, "The capital"),
    ],
)
def test_right_and_wrong_follow_the_same_prompt(others, asked):
    wrong = ("Paris", "New York City", "genre")
    fact = Fact("The capital", "Basil Mahfouz", id="f", distractors=(*wrong, "Paris", "Basil Mahfouz"), **others)
    short = Fact("the", "author", distractors=("Paris",))
    found = score_truth(bridge(), Facts([fact, short], template=Template()), batch_size=2)
    right, others_p = mean_probability(asked, "Basil Mahfouz"), [mean_probability(asked, text) for text in wrong]
    assert found.arithmetic[0].exp().item() == pytest.approx(sum(others_p) / 3 / right, rel=1e-4)
    assert found.geometric[0].exp().item() == pytest.approx(math.prod(others_p) ** (1 / 3) / right, rel=1e-4)
    one = mean_probability("the", "Paris") / mean_probability("the", "author")
    assert found.arithmetic[1].exp().item() == found.geometric[1].exp().item() == pytest.approx(one, rel=1e-4)


def test_at_most_five_wrong_answers_are_drawn_by_seed_and_id():
    seen: list[int] = []

    def model(ids, attention_mask):
        seen.append(len(ids))
        return torch.zeros(*ids.shape, len(byte_level_bos()))

    model.tokenizer = byte_level_bos()
    score_truth(model, [Fact("p", "x", distractors=tuple("abcdefgh"))])
    assert seen == [1 + WRONG]
    many = Fact("The capital", "Paris", id="m", distractors=tuple("abcdefgh"))
    alone, beside = score_truth(bridge(), [many]), score_truth(bridge(), [Fact("q", "y", distractors=("z",)), many])
    assert beside.geometric[1].item() == pytest.approx(alone.geometric[0].item(), abs=1e-4)
    assert score_truth(bridge(), [many], seed=1).geometric[0] != alone.geometric[0]


def test_no_distractors_no_ratio():
    with pytest.raises(UserError, match="fact 'lonely' has no distractors"):
        score_truth(bridge(), [Fact("p", "x", id="lonely", distractors=("x",))])
