import math
from dataclasses import replace

import pytest
import torch

from mechunlearn.unlearning.retain import RETAIN, cross_entropy, drift, kl, representation

from . import arithmetic, formulas
from .worlds import LAYERS, WIDTH, Made, at_start, padded, random_world

kinds = pytest.mark.parametrize("kind", ["retain", "text"])
to_start = pytest.mark.parametrize("term", [kl, representation, drift])


@kinds
def test_cross_entropy(kind):
    world = random_world(0)
    assert cross_entropy(world.step(), kind).item() == pytest.approx(formulas.cross_entropy(world, kind), rel=1e-12)


@kinds
def test_kl_is_from_the_start_model_to_the_model(kind):
    world = random_world(1)
    assert kl(world.step(), kind).item() == pytest.approx(formulas.kl(world, kind), rel=1e-12)


@kinds
def test_representation_is_the_squared_distance_over_the_width(kind):
    world = random_world(2)
    expected = arithmetic.mean([formulas.moved(world, kind, formulas.residual(b), 2, 1 / WIDTH) for b in range(LAYERS)])
    assert representation(world.step(), kind).item() == pytest.approx(expected, rel=1e-12)


@kinds
def test_drift_is_the_distance_over_the_length_at_the_entry_of_the_block_three_eighths_up(kind):
    world, hook = random_world(3), formulas.residual(1)  # in front of block 3 / 8 · 4 ≈ 2

    def one(row: int, place: int) -> float:
        now, before = (formulas.vector(world, side, kind, hook, row, place) for side in ("now", "before"))
        return arithmetic.distance(now, before) / arithmetic.length(before)

    assert drift(world.step(), kind).item() == pytest.approx(formulas.over_tokens(world, kind, one), rel=1e-12)


@to_start
def test_at_the_start_there_is_nothing_to_hold(term):
    world = at_start(random_world(4))
    leaves = world.leaves()
    value = term(world.step(), "retain")
    assert value.item() == pytest.approx(0, abs=1e-15)
    found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    assert max(gradient.abs().max().item() for gradient in found) < 1e-15


@pytest.mark.parametrize("term", RETAIN.values(), ids=RETAIN.keys())
@pytest.mark.parametrize("columns", [1, 7])
def test_padding_is_no_part_of_the_mean(term, columns):
    world = random_world(5)
    wide = world.map(lambda tensor: torch.cat([tensor, torch.full_like(tensor, math.inf)], dim=1))
    piece = padded(world.pieces()[0], columns)
    if columns > world.rows("retain").tokens.ids.shape[1]:
        wide = wide.map(lambda tensor: torch.cat([tensor, tensor], dim=1))
    assert term(Made(wide, piece), "retain").item() == pytest.approx(term(world.step(), "retain").item(), rel=1e-12)


@pytest.mark.parametrize("term", RETAIN.values(), ids=RETAIN.keys())
def test_the_model_has_a_gradient_and_the_start_model_has_none(term):
    world = random_world(6)
    leaves = world.leaves()
    before = [leaf.requires_grad_() for outputs in world.before.values() for leaf in outputs.leaves()]
    term(world.step(), "retain").backward()
    assert any(leaf.grad is not None and leaf.grad.abs().max() > 0 for leaf in leaves)
    assert all(leaf.grad is None for leaf in before)


def test_kl_in_single_precision_agrees_with_double():
    world = random_world(7)
    nearby = replace(world, now=world.before).map(lambda tensor: tensor + 0.1 * torch.sin(1e3 * tensor), both=False)
    single = nearby.map(lambda tensor: tensor.float())
    assert kl(single.step(), "retain").item() == pytest.approx(kl(nearby.step(), "retain").item(), rel=1e-3)
