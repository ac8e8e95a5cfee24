import math

import pytest
import torch

from mechunlearn.unlearning import WGA, GradientDifference

from .formulas import descent, forget_gradient
from .worlds import random_world


def test_defaults_are_those_of_open_unlearning():
    assert WGA() == WGA(beta=1.0, forget_weight=1.0, retain_weight=1.0)


def test_without_beta_it_is_gradient_difference():
    world = random_world(0)
    value, found = forget_gradient(WGA(beta=0.0), world)
    expected, gradient = forget_gradient(GradientDifference(), world)
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(found["forget"], gradient["forget"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_no_gradient_flows_through_the_weight(beta):
    world = random_world(1, plain=True)
    count = int(world.rows("forget").tokens.predicts.sum())
    _, found = forget_gradient(WGA(beta=beta), world)
    expected = descent(world, "forget", lambda row, place, nll: -math.exp(-beta * nll) / count)
    torch.testing.assert_close(found["forget"], expected)


def test_with_beta_one_it_descends_the_probability():
    world = random_world(2, plain=True)
    _, found = forget_gradient(WGA(), world)
    tokens, logits = world.rows("forget").tokens, world.now["forget"].logits
    probability = logits[tokens.predicts].softmax(-1).gather(1, tokens.targets[:, None]).mean()
    torch.testing.assert_close(found["forget"], torch.autograd.grad(probability, logits)[0])
