"""Which rows a step sees, and that splitting it changes nothing."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize, tokenize_texts
from mechunlearn.models import clone, hf, load
from mechunlearn.unlearning import DPO, METHODS, NPO
from mechunlearn.unlearning.batches import (
    Rows,
    Sources,
    asked,
    by_role,
    draw,
    score,
    shown,
    spread,
    with_distractors,
)

from ..architectures import NAMES, tiny
from .conftest import TEXT


@pytest.fixture(scope="module")
def sources(knowing, facts) -> Sources:
    phrasings, kept = spread(facts.forget, shown), spread(facts.retain, shown)
    return Sources(
        Rows(tokenize(phrasings, knowing.tokenizer)),
        Rows(tokenize(kept, knowing.tokenizer)),
        by_role(kept),
        Rows(tokenize(with_distractors(phrasings, 0), knowing.tokenizer)),
        Rows(tokenize_texts(TEXT, knowing.tokenizer)),
    ).with_references(knowing, 3)


def test_trained_and_tested_phrasings_are_apart(facts):
    learned = {fact.prompt for fact in spread(facts, shown)}
    tried = {fact.prompt for fact in spread(facts, asked)}
    assert len(learned) == 2 * len(facts)
    assert len(tried) == len(facts)
    assert not learned & tried


def test_a_fact_without_held_out_phrasings_is_asked_as_it_is(facts):
    plain = type(facts)([type(facts[0])(prompt="the sky is", answer="blue")])
    assert [fact.prompt for fact in spread(plain, asked)] == ["the sky is"]


def test_distractors_are_wrong_answers_of_the_same_fact_and_follow_the_seed(facts):
    rows = spread(facts.forget, shown)
    drawn = with_distractors(rows, 3)
    for row, other in zip(rows, drawn, strict=True):
        assert other.prompt == row.prompt
        assert other.answer in row.distractors
    assert drawn.hash == with_distractors(rows, 3).hash
    assert drawn.hash != with_distractors(rows, 4).hash


def test_a_fact_without_distractors_is_named(facts):
    bare = type(facts)([type(facts[0])(prompt="the sky is", answer="blue", id="sky")])
    with pytest.raises(UserError, match="'sky' has no distractors"):
        with_distractors(spread(bare, shown), 0)


def test_every_row_comes_once_before_any_comes_again(sources):
    forget = len(sources.forget)  # 8 rows
    batches = list(islice(draw(sources, 2, 1, seed=0), 40))
    for start in range(0, 40, forget // 2):
        seen = Counter(name for batch in batches[start : start + forget // 2] for name in batch.forget.fact_ids)
        assert set(seen.values()) == {1}
        assert len(seen) == forget


def test_near_and_far_facts_take_turns(sources, facts):
    roles = {fact.id: fact.role for fact in facts}
    batches = list(islice(draw(sources, 3, 1, seed=0), 8))  # 24 rows: all 6 near ones twice, all 4 far ones three times
    names = [name for batch in batches for name in batch.retain.fact_ids]
    assert [roles[name.split("#")[0]] for name in names] == ["near", "far"] * 12
    seen = Counter(names)
    assert {seen[name] for name in seen if roles[name.split("#")[0]] == "near"} == {2}
    assert {seen[name] for name in seen if roles[name.split("#")[0]] == "far"} == {3}


def test_facts_without_role_are_one_group(facts):
    plain = type(facts)([replace(fact, role=None) for fact in facts])
    assert [group.tolist() for group in by_role(plain)] == [list(range(9))]


def test_order_follows_the_seed(sources):
    def order(seed):
        return [batch.forget.fact_ids for batch in islice(draw(sources, 4, 1, seed), 6)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_references_and_alternatives_belong_to_their_rows(sources, knowing):
    for batch in islice(draw(sources, 5, 2, seed=0), 6):
        assert batch.alternative is not None
        assert batch.alternative.fact_ids == batch.forget.fact_ids
        with torch.no_grad():
            torch.testing.assert_close(batch.reference, score(hf(knowing), batch.forget).nll)
            torch.testing.assert_close(batch.alternative_reference, score(hf(knowing), batch.alternative).nll)


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("method", [NPO, DPO])
def test_forget_loss_of_the_start_model(sources, knowing, method, beta):
    batch = next(draw(sources, 8, 1, seed=0))
    with torch.no_grad():
        found = method(beta=beta).loss(batch.score(hf(knowing)))["forget"]
    assert found.item() == pytest.approx(2 / beta * torch.tensor(2.0).log().item(), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_accumulated_gradient_is_that_of_the_whole_step(sources, knowing, name, parts):
    def gradient(count: int) -> torch.Tensor:
        model = hf(clone(knowing)).double()
        for batch in islice(draw(sources, 7, count, seed=5), count):
            (METHODS[name]().loss(batch.score(model))["loss"] / count).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    torch.testing.assert_close(gradient(parts), gradient(1), rtol=1e-9, atol=1e-12)


def test_scores_do_not_depend_on_padding_or_neighbours(sources, knowing):
    rows = sources.forget.tokens
    with torch.no_grad():
        together = score(hf(knowing), rows).nll
        apart = torch.cat([score(hf(knowing), rows[[row]].trim()).nll for row in range(len(rows))])
    torch.testing.assert_close(together, apart)


def test_tokens_are_counted_without_padding(sources):
    batch = next(draw(sources, 3, 1, seed=0))
    parts = (batch.forget, batch.retain, batch.alternative, batch.text)
    assert batch.n_tokens == sum(int(part.attention.sum()) for part in parts if part is not None)
    assert batch.n_tokens < sum(part.ids.numel() for part in parts if part is not None)


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_all_logits_on_every_architecture(name, sources):
    model, rows = load(tiny(name)), sources.retain.tokens
    logits = model(rows.ids, attention_mask=rows.attention).log_softmax(-1)
    expected = [
        -sum(logits[row, place - 1, rows.ids[row, place]].item() for place in rows.answers[row].nonzero()[:, 0])
        for row in range(len(rows))
    ]
    with torch.no_grad():
        assert score(hf(model), rows).nll.tolist() == pytest.approx(expected, rel=1e-4)
