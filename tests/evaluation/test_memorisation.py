"""Memorisation and ranks against plain loops."""

import pytest
import torch
from hypothesis import given, strategies as st

from mechunlearn.evaluation import exact_memorisation, extraction_strength, score_answers, token_rank
from mechunlearn.facts import tokenize

from ..facts.tokenizers import byte_level_bos
from .models import plain
from .test_answers import FACTS

ANSWERS = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=5)


def flat(answers: list[list[bool]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    count = torch.tensor([len(answer) for answer in answers])
    rows = torch.repeat_interleave(torch.arange(len(answers)), count)
    return torch.tensor([hit for answer in answers for hit in answer]), rows, count


@given(ANSWERS)
def test_exact_memorisation_is_the_share_of_hits(answers):
    expected = [sum(answer) / len(answer) for answer in answers]
    assert exact_memorisation(*flat(answers)).tolist() == pytest.approx(expected)


@given(ANSWERS)
def test_extraction_strength_is_the_end_that_follows(answers):
    def strength(answer: list[bool]) -> float:
        given = next(k for k in range(len(answer) + 1) if all(answer[k:]))
        return 1 - given / len(answer)

    assert extraction_strength(*flat(answers)).tolist() == pytest.approx([strength(answer) for answer in answers])


def test_extraction_strength_has_no_floor():
    """Where nothing matches it is 0, not 1/n; only the last token gives 1/n, and a hit inside gives nothing."""
    rows = [[False] * 4, [False, False, False, True], [True, True, True, False], [True, False, True, True], [True] * 4]
    assert extraction_strength(*flat(rows)).tolist() == [0, 0.25, 0, 0.5, 1]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(0, 4))
def test_rank_is_the_place_in_a_sorted_list(logits, target):
    targets = torch.full((len(logits),), target)
    expected = []
    for row in logits:
        places = [place for place, value in enumerate(sorted(row, reverse=True), start=1) if value == row[target]]
        expected.append(sum(places) / len(places))
    assert token_rank(torch.tensor(logits).double(), targets).tolist() == pytest.approx(expected)


def test_a_flat_model_ranks_nothing_first():
    assert token_rank(torch.zeros(2, 101), torch.tensor([0, 7])).tolist() == [51, 51]


def test_scores_of_a_model_are_those_of_each_row_alone():
    tokenizer, double = byte_level_bos(), plain().double()
    tokens = tokenize(FACTS, tokenizer)
    found = score_answers(plain(), tokens, 2)
    for row in range(len(tokens)):
        ids = tokens.ids[row][tokens.attention[row].bool()]
        places = tokens.answers[row].nonzero().flatten().tolist()
        with torch.no_grad():
            logits = double(ids[None]).logits[0]
        ranks = [
            1 + sum(bool(other > logits[place - 1, ids[place]]) for other in logits[place - 1]) for place in places
        ]
        hits = [rank == 1 for rank in ranks]
        assert found.rank[row].item() == pytest.approx(sum(ranks) / len(ranks))
        assert found.memorised[row].item() == pytest.approx(sum(hits) / len(hits))
        assert found.correct[row].item() is all(hits)
        tail = next(k for k in range(len(hits) + 1) if all(hits[k:]))
        assert found.extracted[row].item() == pytest.approx(1 - tail / len(hits))
