"""What holds for the loss of every method."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .cases import METHODS, Case, random_case, random_step, summed_nll, written_out

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
seeds = st.integers(0, 2**32)


@given(seeds, st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_answers_are_scored_token_by_token(seed, rows):
    case = random_case(torch.Generator().manual_seed(seed), rows)
    answers = case.answers()
    for row in range(rows):
        total, count = summed_nll(case, row)
        assert answers.nll[row].item() == pytest.approx(total, rel=1e-12)
        assert answers.tokens[row].item() == count


def test_half_precision_logits_are_scored_in_fp32():
    case = random_case(torch.Generator().manual_seed(0), 4)
    half = case.logits.to(torch.bfloat16)
    scored = Case(case.tokens, half).answers()
    assert scored.nll.dtype == torch.float32
    assert torch.equal(scored.nll, Case(case.tokens, half.float()).answers().nll)


@every_method
@given(seed=seeds, text=st.booleans())
@settings(max_examples=20, deadline=None)
def test_loss_equals_the_formula_written_out(method, seed, text):
    step = random_step(seed, text=text)
    assert method.loss(step.scores())["loss"].item() == pytest.approx(written_out(method, step), rel=1e-12)


@every_method
@given(seed=seeds, columns=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_padding_and_prompts_have_no_influence(method, seed, columns):
    step, generator = random_step(seed), torch.Generator().manual_seed(seed)
    padded = step.change(lambda case: case.padded(columns, generator))
    assert method.loss(padded.scores())["loss"].item() == method.loss(step.scores())["loss"].item()
    leaf = padded.forget.logits.requires_grad_()
    method.loss(padded.scores())["loss"].backward()
    assert leaf.grad is not None
    assert leaf.grad[~padded.forget.tokens.predicts].abs().max() == 0
    assert leaf.grad[padded.forget.tokens.predicts].abs().min() > 0


@every_method
@given(seed=seeds, order=st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_order_of_the_batch_has_no_influence(method, seed, order):
    step = random_step(seed)
    expected = method.loss(step.scores())["loss"].item()
    assert method.loss(step.scores(order))["loss"].item() == pytest.approx(expected, rel=1e-12)


@every_method
@given(seed=seeds, parts=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_splitting_a_step_changes_neither_value_nor_gradient(method, seed, parts):
    step = random_step(seed)
    leaves = [case.logits.requires_grad_() for case in (step.forget, step.alternative, step.retain)]
    whole = method.loss(step.scores())
    expected = torch.autograd.grad(whole["loss"], leaves, allow_unused=True, materialize_grads=True)

    pieces = [method.loss(step.scores(list(range(6))[part::parts], parts)) for part in range(parts)]
    mean = torch.stack([piece["loss"] for piece in pieces]).mean()
    found = torch.autograd.grad(mean, leaves, allow_unused=True, materialize_grads=True)
    assert mean.item() == pytest.approx(whole["loss"].item(), rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    for name, value in whole.items():
        assert sum(piece[name].item() for piece in pieces) / parts == pytest.approx(value.item(), rel=1e-12)


@every_method
def test_single_precision_agrees_with_double(method):
    step = random_step(3)
    single = step.change(lambda case: Case(case.tokens, case.logits.float()))
    assert method.loss(single.scores())["loss"].item() == pytest.approx(written_out(method, step), rel=1e-5)
