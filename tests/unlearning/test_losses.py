"""What holds for the loss of every method."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.unlearning import NPO, Method

from .formulas import LOSSES, written_out
from .worlds import ROWS, Made, World, at_start, padded, random_world

every_loss = pytest.mark.parametrize("method", LOSSES.values(), ids=LOSSES.keys())
seeds = st.integers(0, 2**32)
few = settings(max_examples=4)


def values(method: Method, step: Made) -> dict[str, float]:
    return {name: value.item() for name, value in method.loss(step).items()}


def gradients(method: Method, world: World, count: int = 1) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Mean loss parts over the pieces of a step, and the gradient of the loss in all that the model gives."""
    leaves = world.leaves()
    parts = [method.loss(Made(world, piece)) for piece in world.pieces(count=count, progress=0.5)]
    loss = torch.stack([part["loss"] for part in parts]).mean()
    found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return {name: sum(part[name].item() for part in parts) / count for name in parts[0]}, list(found)


def close(found: dict[str, float], expected: dict[str, float], rel: float = 1e-10) -> None:
    assert found == {name: pytest.approx(value, rel=rel, abs=1e-12) for name, value in expected.items()}


@every_loss
@given(seed=seeds, text=st.booleans(), progress=st.floats(0, 1))
@few
def test_equals_the_formula_written_out(method, seed, text, progress):
    world = random_world(seed, text)
    close(values(method, world.step(progress=progress, seed=3)), written_out(method, world, progress, seed=3))


@pytest.mark.parametrize("retain", ["cross_entropy", "kl", "representation"])
@every_loss
def test_every_loss_takes_every_retain_term(method, retain):
    world, chosen = random_world(5), replace(method, retain=retain, retain_weight=0.7, text_weight=1.9)
    close(values(chosen, world.step(progress=0.5)), written_out(chosen, world, 0.5))


@every_loss
@given(seed=seeds, columns=st.integers(1, 4))
@few
def test_padding_has_no_influence(method, seed, columns):
    world = random_world(seed)
    expected = values(method, world.step(progress=0.5))
    generator = torch.Generator().manual_seed(seed)

    def wider(tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(tensor), columns, tensor.shape[-1], generator=generator, dtype=torch.float64)
        return torch.cat([tensor, 1e6 * noise], dim=1)

    # Cut to the widest row by `assemble`, then widened again with ids that no vocabulary has.
    piece = padded(world.pieces(progress=0.5)[0], columns)
    close(values(method, Made(world.map(wider), piece)), expected)
    endless = world.map(lambda tensor: torch.cat([tensor, torch.full_like(tensor, math.inf)], dim=1))
    close(values(method, Made(endless, piece)), expected)


@every_loss
@given(seed=seeds)
@few
def test_only_what_counts_has_a_gradient(method, seed):
    world = random_world(seed)
    _, found = gradients(method, world)
    at = iter(found)
    for kind, outputs in world.now.items():
        rows = world.rows(kind)
        assert next(at)[~rows.tokens.predicts].abs().max() == 0
        for _ in outputs.states:
            assert next(at)[~rows.valid].abs().max() == 0
    assert sum(gradient.abs().sum() for gradient in found) > 0


@every_loss
@given(seed=seeds, order=st.permutations(range(ROWS)))
@few
def test_order_of_the_batch_has_no_influence(method, seed, order):
    world = random_world(seed)
    close(values(method, world.step(order, progress=0.5)), values(method, world.step(progress=0.5)))


@every_loss
@given(seed=seeds, count=st.integers(2, ROWS))
@few
def test_splitting_a_step_changes_neither_value_nor_gradient(method, seed, count):
    world = random_world(seed)
    whole, expected = gradients(method, world)
    parts, found = gradients(method, world, count)
    close(parts, whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_loss
@given(seed=seeds)
@settings(max_examples=2)
def test_is_linear_in_the_weights_of_rows(method, seed):
    """So that a row of weight 2 counts like two rows, and one of weight 0 not at all."""
    world = random_world(seed)
    total = values(method, world.step(progress=0.5))

    def alone(row: int) -> World:
        only = torch.zeros(ROWS).index_fill(0, torch.tensor([row]), 1.0)
        return world.change(lambda rows: replace(rows, weight=rows.weight * only))

    apart = [values(method, alone(row).step(progress=0.5)) for row in range(ROWS)]
    close({name: sum(part[name] for part in apart) for name in total}, total)


@every_loss
def test_a_row_of_weight_zero_has_no_gradient(method):
    world = random_world(1).change(lambda rows: replace(rows, weight=rows.weight.index_fill(0, torch.tensor([2]), 0.0)))
    _, found = gradients(method, world)
    assert max(gradient[2].abs().max() for gradient in found) == 0


@every_loss
def test_single_precision_agrees_with_double(method):
    world = random_world(3)
    single = world.map(lambda tensor: tensor.float())
    close(values(method, single.step(progress=0.5)), written_out(method, world, 0.5), rel=1e-4)


@every_loss
def test_without_retain_weight_nothing_is_retained(method):
    world = random_world(4)
    found = values(replace(method, retain_weight=0.0), world.step(progress=0.5))
    assert set(found) == {"loss", "forget"}


@every_loss
def test_is_finite_where_the_model_is_the_start_model(method):
    world = at_start(random_world(6))
    found, gradient = gradients(method, world)
    assert all(math.isfinite(value) for value in found.values())
    assert all(part.isfinite().all() for part in gradient)


@every_loss
def test_weights_multiply_the_parts(method):
    world = random_world(7)
    chosen = replace(method, forget_weight=0.3, retain_weight=1.7, text_weight=0.6)
    found = values(chosen, world.step(progress=0.25))
    down, up = chosen.weights(0.25)
    assert found["loss"] == pytest.approx(down * found["forget"] + up * (found["retain"] + 0.6 * found["text"]))


def test_retain_terms_are_checked():
    with pytest.raises(UserError, match=r"npo: retain='own' is not one of cross_entropy, kl, representation"):
        NPO(retain="own")


def test_numbers_must_be_finite():
    with pytest.raises(UserError, match="npo: beta must be a number, not nan"):
        NPO(beta=math.nan)
