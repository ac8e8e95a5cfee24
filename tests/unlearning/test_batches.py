"""Which rows a step sees, and that splitting it changes nothing."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from mechunlearn.facts import Tokens
from mechunlearn.models import clone, hf
from mechunlearn.unlearning import NPO, GradientDifference
from mechunlearn.unlearning.data.batches import Draws, Sources, assemble, draw
from mechunlearn.unlearning.data.rows import Rows, fact_rows, text_rows, trained, with_distractors
from mechunlearn.unlearning.step import Step

from .conftest import TEXT


@pytest.fixture(scope="module")
def sources(knowing, facts) -> Sources:
    phrasings, kept = trained(facts.forget), trained(facts.retain)
    return Sources(
        fact_rows(phrasings, knowing),
        fact_rows(kept, knowing, group=lambda fact: fact.role),
        fact_rows(with_distractors(phrasings, 0), knowing),
        text_rows(TEXT, knowing),
    ).with_start(knowing, 3)


def bare(groups: tuple[int, ...]) -> Rows:
    """Rows without content, in groups of these sizes."""
    count, first, places = sum(groups), 0, []
    for size in groups:
        places.append(torch.arange(first, first + size))
        first += size
    ids = torch.arange(2 * count).view(count, 2)
    marks = torch.tensor([[True, False]] * count)
    tokens = Tokens(ids, torch.ones_like(ids), marks, marks.roll(1, 1), tuple(map(str, range(count))))
    return Rows(tokens, marks | True, tuple(places), torch.ones(count), torch.full((count,), -1))


@settings(max_examples=60)
@given(
    groups=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
)
def test_groups_take_turns_and_every_row_comes_once_before_any_comes_again(groups, size, seed):
    rows = bare(tuple(groups))
    drawn = [step["forget"].tolist() for step in islice(draw(Sources(rows), size, seed), 30)]
    assert {len(step) for step in drawn} == {size}
    stream = [row for step in drawn for row in step]
    owner = {int(row): number for number, group in enumerate(rows.groups) for row in group}
    assert [owner[row] for row in stream] == [place % len(groups) for place in range(len(stream))]
    for number, group in enumerate(rows.groups):
        own = [row for row in stream if owner[row] == number]
        for first in range(0, len(own), len(group)):
            assert max(Counter(own[first : first + len(group)]).values()) == 1


def listed(sources, size, seed, steps=8) -> list[dict[str, list[int]]]:
    drawn = islice(draw(sources, size, seed), steps)
    return [{kind: index.tolist() for kind, index in step.items()} for step in drawn]


def test_order_follows_the_seed_and_the_kind_alone(sources):
    assert listed(sources, 4, 1) == listed(sources, 4, 1)
    assert listed(sources, 4, 1) != listed(sources, 4, 2)
    alone = Sources(sources.forget)
    assert [step["forget"] for step in listed(sources, 4, 1)] == [step["forget"] for step in listed(alone, 4, 1)]
    without_retain = replace(sources, retain=None)
    assert [step["text"] for step in listed(sources, 4, 1)] == [step["text"] for step in listed(without_retain, 4, 1)]
    torch.manual_seed(5)  # the global random state has no part in it
    assert listed(sources, 4, 1) == listed(sources, 4, 1)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_any_step_may_be_asked_for_in_any_order(steps):
    sources = Sources(bare((3, 5)), bare((4,)))
    expected, draws = listed(sources, 3, 9, 21), Draws(sources, 3, 9)
    for step in steps:
        assert {kind: index.tolist() for kind, index in draws[step].items()} == expected[step]


def test_pieces_hold_the_rows_of_the_step_once_each_and_none_is_empty(sources):
    drawn = next(draw(sources, 7, 3))
    for count in range(1, 8):
        pieces = assemble(sources, drawn, count, progress=0.25)
        assert len(pieces) == count
        for kind in ("forget", "retain", "text", "alternative"):
            names = Counter(name for piece in pieces for name in piece.parts[kind].tokens.fact_ids)
            assert names == Counter(name for name in assemble(sources, drawn, 1)[0].parts[kind].tokens.fact_ids)
            assert min(len(piece.parts[kind].tokens) for piece in pieces) >= 1
        assert {piece.progress for piece in pieces} == {0.25}


def test_alternatives_and_start_likelihoods_belong_to_their_rows(sources):
    for drawn in islice(draw(sources, 5, 0), 4):
        for piece in assemble(sources, drawn, 2):
            forget, other = piece.parts["forget"], piece.parts["alternative"]
            assert forget.tokens.fact_ids == other.tokens.fact_ids
            for part, rows in ((forget, sources.forget), (other, sources.alternative)):
                places = [rows.tokens.fact_ids.index(name) for name in part.tokens.fact_ids]
                assert torch.equal(part.start_nll, rows.start_nll[places])


def test_padding_of_a_piece_is_trimmed_and_not_counted(sources):
    pieces = assemble(sources, next(draw(sources, 3, 0)), 3)
    for piece in pieces:
        for part in piece.parts.values():
            assert int(part.tokens.attention.sum(1).max()) == part.tokens.ids.shape[1]
            assert part.valid.shape == part.tokens.ids.shape
        assert piece.n_tokens == sum(int(part.tokens.attention.sum()) for part in piece.parts.values())


class Straight(GradientDifference):
    """Uses all three kinds of mean."""

    def forget(self, step: Step) -> Tensor:
        seen = step.see("forget", ["blocks.1.hook_resid_post"])
        spread_out = seen.over_tokens(seen.states["blocks.1.hook_resid_post"].square().sum(-1))
        return seen.over_facts(seen.nll.square()) - seen.cross_entropy + 0.01 * spread_out


@pytest.mark.parametrize("method", [NPO(), NPO(retain="kl"), Straight(retain="representation")], ids=repr)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_gradient_of_the_pieces_is_that_of_the_whole_step(sources, knowing, method, count):
    weighted = replace(sources, retain=replace(sources.retain, weight=torch.linspace(0.2, 2, len(sources.retain))))
    start = clone(knowing).double()
    moved = clone(knowing).double()
    with torch.no_grad():
        for parameter in hf(moved).parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel(), dtype=torch.float64)).view_as(parameter))

    def gradient(pieces: int) -> tuple[Tensor, Tensor]:
        hf(moved).zero_grad()
        losses = []
        for piece in assemble(weighted, next(draw(weighted, 7, 5)), pieces):
            loss = method.loss(Step(moved, start, piece))["loss"] / pieces
            loss.backward()
            losses.append(loss.detach())
        grads = nn.utils.parameters_to_vector(
            [p.grad if p.grad is not None else torch.zeros_like(p) for p in hf(moved).parameters()]
        )
        return grads, torch.stack(losses).sum()

    for found, expected in zip(gradient(count), gradient(1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
