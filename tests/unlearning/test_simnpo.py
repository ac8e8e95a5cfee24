import math
from dataclasses import replace

import pytest
import torch

from mechunlearn.unlearning import SimNPO

from .arithmetic import log_sigmoid
from .formulas import descent, forget_gradient, summed
from .worlds import ROWS, World, random_world

betas = pytest.mark.parametrize("beta", [0.5, 2.5, 4.5])


def lengths(world: World) -> list[int]:
    return world.rows("forget").tokens.predicts.sum(dim=1).tolist()


def certain(world: World) -> World:
    """The same, where every answer token has probability 1."""
    tokens = world.rows("forget").tokens
    logits = torch.zeros_like(world.now["forget"].logits)
    logits[(*tokens.predicts.nonzero(as_tuple=True), tokens.targets)] = 1e4
    return replace(world, now=world.now | {"forget": replace(world.now["forget"], logits=logits)})


def test_defaults_are_those_of_open_unlearning():
    assert SimNPO() == SimNPO(beta=4.5, delta=0.0, forget_weight=0.125, retain_weight=1.0)


@betas
def test_value_where_the_model_is_certain(beta):
    value, _ = forget_gradient(SimNPO(beta=beta), certain(random_world(0, plain=True)))
    assert value == pytest.approx(2 / beta * math.log(2), rel=1e-12)


def test_value_where_the_model_is_certain_for_the_default_beta():
    assert forget_gradient(SimNPO(), certain(random_world(0, plain=True)))[0] == pytest.approx(0.3081, abs=1e-4)


@betas
@pytest.mark.parametrize("delta", [0.0, 1.5])
def test_gradient_weight(beta, delta):
    world = random_world(1, plain=True)
    counts = lengths(world)
    margins = [summed(world, "forget", row)[0] / counts[row] - delta for row in range(ROWS)]
    value, found = forget_gradient(SimNPO(beta=beta, delta=delta), world)
    assert value == pytest.approx(-2 / beta * sum(map(log_sigmoid, [beta * m for m in margins])) / ROWS)
    weights = [-2 / (1 + math.exp(beta * m)) / counts[row] / ROWS for row, m in enumerate(margins)]
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda row, *_: weights[row]))


def test_small_beta_is_ascent_on_the_mean_nll():
    world = random_world(2, plain=True)
    counts = lengths(world)
    _, found = forget_gradient(SimNPO(beta=1e-9), world)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda row, *_: -1 / counts[row] / ROWS))


def test_the_start_model_plays_no_part():
    world = random_world(3)
    rows = replace(world.sources.forget, start_nll=None)
    bare = replace(world, sources=replace(world.sources, forget=rows), before={})
    assert SimNPO().loss(bare.step())["loss"] == SimNPO().loss(world.step())["loss"]
