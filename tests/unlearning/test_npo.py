import math

import pytest
import torch

from mechunlearn.unlearning import NPO

from .formulas import descent, forget_gradient, risen_by
from .worlds import ROWS, at_start, random_world

betas = pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 4.0])


def test_defaults_are_the_papers():
    assert NPO() == NPO(beta=0.1, forget_weight=1.0, retain_weight=1.0)


@betas
def test_at_the_start_model_it_is_ascent_on_summed_nll(beta):
    world = at_start(random_world(1, plain=True))
    value, found = forget_gradient(NPO(beta=beta), world)
    assert value == pytest.approx(2 / beta * math.log(2), rel=1e-12)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda *_: -1 / ROWS))


def test_value_at_the_start_model_for_the_default_beta():
    value, _ = forget_gradient(NPO(), at_start(random_world(1, plain=True)))
    assert value == pytest.approx(13.8629, abs=1e-4)


@betas
def test_gradient_weight(beta):
    risen = [-3.0, -0.5, 0.0, 0.5, 3.0, 20.0]
    world = risen_by(random_world(2, plain=True), "forget", risen)
    _, found = forget_gradient(NPO(beta=beta), world)
    weights = [-2 * (1 - 1 / (1 + math.exp(-beta * value))) / ROWS for value in risen]
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda row, *_: weights[row]))


def test_lets_go_of_what_is_forgotten():
    value, found = forget_gradient(NPO(beta=1.0), risen_by(random_world(2, plain=True), "forget", [1e4] * ROWS))
    assert value == 0
    assert found["forget"].abs().max() == 0


def test_pulls_twice_as_hard_on_what_was_learned_better():
    world = risen_by(random_world(2, plain=True), "forget", [-1e4] * ROWS)
    _, found = forget_gradient(NPO(beta=1.0), world)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda *_: -2 / ROWS))


def test_small_beta_is_gradient_ascent_wherever_it_is():
    world = risen_by(random_world(2, plain=True), "forget", [-5.0, -3.0, -1.0, 1.0, 3.0, 5.0])
    _, found = forget_gradient(NPO(beta=1e-9), world)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda *_: -1 / ROWS))
