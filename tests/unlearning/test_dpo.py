import math

import pytest
import torch

from mechunlearn.unlearning import DPO, NPO, RefusalDPO

from .formulas import descent, forget_gradient, risen_by
from .worlds import ROWS, at_start, random_world

betas = pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 4.0])


def test_defaults_are_the_papers():
    assert DPO() == DPO(beta=0.1, forget_weight=1.0, retain_weight=1.0)


def test_the_refusal_form_is_the_same_loss():
    step = random_world(0).step()
    assert RefusalDPO().loss(step)["loss"] == DPO().loss(step)["loss"]


@betas
def test_at_the_start_model(beta):
    world = at_start(random_world(1, plain=True))
    value, found = forget_gradient(DPO(beta=beta), world)
    assert value == pytest.approx(2 / beta * math.log(2), rel=1e-12)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda *_: -1 / ROWS))
    torch.testing.assert_close(found["alternative"], descent(world, "alternative", lambda *_: 1 / ROWS))


@betas
def test_gradient_weight(beta):
    rejected, preferred = torch.randn(2, ROWS, generator=torch.Generator().manual_seed(0)).mul(3).tolist()
    world = risen_by(risen_by(random_world(2, plain=True), "forget", rejected), "alternative", preferred)
    weights = [2 / (1 + math.exp(beta * (r - p))) / ROWS for r, p in zip(rejected, preferred, strict=True)]
    _, found = forget_gradient(DPO(beta=beta), world)
    torch.testing.assert_close(found["forget"], descent(world, "forget", lambda row, *_: -weights[row]))
    torch.testing.assert_close(found["alternative"], descent(world, "alternative", lambda row, *_: weights[row]))


def test_lets_go_once_the_alternative_is_preferred():
    world = risen_by(risen_by(random_world(2, plain=True), "forget", [1e4] * ROWS), "alternative", [-1e4] * ROWS)
    value, found = forget_gradient(DPO(beta=1.0), world)
    assert value == found["forget"].abs().max() == found["alternative"].abs().max() == 0


def test_is_npo_when_the_alternative_stays_as_likely():
    world = risen_by(random_world(2), "alternative", [0.0] * ROWS)
    value, found = forget_gradient(DPO(beta=0.3), world)
    expected, gradient = forget_gradient(NPO(beta=0.3), world)
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(found["forget"], gradient["forget"])
