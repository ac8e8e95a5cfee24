"""From facts to rows: which phrasings, which other answers, which weights."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts
from mechunlearn.models import hf
from mechunlearn.unlearning.data.rows import (
    fact_rows,
    text_rows,
    trained,
    with_distractors,
    with_refusals,
)

from .conftest import TEXT


def test_trained_and_tested_phrasings_are_apart(facts):
    learned = {fact.prompt for fact in trained(facts)}
    tried = {fact.prompt for fact in facts.questions()}
    assert len(learned) == 2 * len(facts)
    assert len(tried) == len(facts)
    assert not learned & tried


def test_a_fact_without_held_out_phrasings_is_asked_as_it_is():
    plain = Facts([Fact(prompt="the sky is", answer="blue")])
    assert [fact.prompt for fact in plain.questions()] == ["the sky is"]


def test_distractors_are_wrong_answers_of_the_same_fact_and_follow_the_seed(facts):
    rows = trained(facts.forget)
    drawn = with_distractors(rows, 3)
    for row, other in zip(rows, drawn, strict=True):
        assert other.prompt == row.prompt
        assert other.answer in row.distractors
    assert drawn.hash == with_distractors(rows, 3).hash
    assert drawn.hash != with_distractors(rows, 4).hash


def test_a_fact_without_distractors_is_named():
    bare = Facts([Fact(prompt="the sky is", answer="blue", id="sky")])
    with pytest.raises(UserError, match="'sky' has no distractors"):
        with_distractors(trained(bare), 0)


def test_refusals_are_drawn_with_the_seed(facts):
    rows, refusals = trained(facts.forget), ("red house", "blue coat")
    drawn = with_refusals(rows, refusals, 0)
    assert {row.answer for row in drawn} == set(refusals)
    assert [row.prompt for row in drawn] == [row.prompt for row in rows]
    assert drawn.hash == with_refusals(rows, refusals, 0).hash


def test_groups_folds_and_weights_belong_to_their_rows(facts, knowing):
    folded = Facts([replace(fact, fold=place % 3) if place else fact for place, fact in enumerate(facts)])
    weights = {"forget": 0.5, "near": 2.0, "far": 3.0}
    rows = fact_rows(folded, knowing, group=lambda fact: fact.role, weight=lambda fact: weights[fact.role])
    assert [group.tolist() for group in rows.groups] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]
    assert rows.weight.tolist() == [0.5] * 4 + [2.0] * 3 + [3.0] * 2
    assert rows.fold.tolist() == [-1, 1, 2, 0, 1, 2, 0, 1, 2]


def test_bos_and_padding_are_not_valid(facts, knowing, monkeypatch):
    template = replace(facts.template, bos=True)
    rows = fact_rows(Facts(facts.items, template=template), knowing)
    expected = rows.tokens.attention.bool().clone()
    assert (rows.tokens.ids[:, 0] == knowing.tokenizer.bos_token_id).all()
    expected[:, 0] = False
    assert torch.equal(rows.valid, expected)
    bare = fact_rows(facts, knowing)
    assert torch.equal(bare.valid, bare.tokens.attention.bool())


def test_every_token_of_a_text_but_the_first_is_predicted(knowing):
    rows = text_rows(TEXT, knowing)
    assert len(rows) == len(TEXT)
    for row, text in enumerate(TEXT):
        words = len(text.split())
        assert rows.tokens.predicts[row].tolist() == [True] * (words - 1) + [False] * (14 - words)
    assert rows.weight.tolist() == [1.0] * 3
    assert [group.tolist() for group in rows.groups] == [[0, 1, 2]]


def test_a_text_longer_than_the_context_becomes_several_rows(knowing):
    rows = text_rows([" ".join(["a coat is a coat"] * 10)], knowing)
    assert len(rows) == 2
    assert len(rows.weight) == len(rows.fold) == 2


def test_start_likelihood_is_that_of_the_model_whatever_the_batch(facts, knowing):
    rows = fact_rows(trained(facts.forget), knowing)
    for size in (1, 3, 100):
        found = rows.with_start(knowing, size).start_nll
        for row in range(len(rows)):
            ids = rows.tokens.ids[row : row + 1, : int(rows.tokens.attention[row].sum())]
            with torch.no_grad():
                scores = hf(knowing)(input_ids=ids).logits[0].double().log_softmax(-1)
            places = rows.tokens.answers[row].nonzero()[:, 0]
            expected = -sum(float(scores[place - 1, ids[0, place]]) for place in places)
            assert found[row].item() == pytest.approx(expected, abs=1e-5)
