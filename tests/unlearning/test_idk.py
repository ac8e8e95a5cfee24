import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.unlearning import IDK

from .formulas import cross_entropy, descent, forget_gradient
from .worlds import random_world


def test_descends_the_loss_of_the_refusals_alone():
    world = random_world(0, plain=True)
    value, found = forget_gradient(IDK(), world)
    assert value == pytest.approx(cross_entropy(world, "alternative"), rel=1e-12)
    count = int(world.rows("alternative").tokens.predicts.sum())
    torch.testing.assert_close(found["alternative"], descent(world, "alternative", lambda *_: 1 / count))
    assert found["forget"].abs().max() == 0


def test_there_must_be_refusals():
    with pytest.raises(UserError, match="no refusals"):
        IDK(refusals=())
