import torch

from mechunlearn.unlearning import GradientAscent, GradientDifference

from .formulas import descent
from .worlds import random_world


def test_defaults_are_the_papers():
    assert GradientDifference() == GradientDifference(forget_weight=1.0, retain_weight=1.0, retain="cross_entropy")
    assert GradientAscent() == GradientAscent(forget_weight=1.0, retain_weight=0.0)


def test_gradient_climbs_forget_and_descends_retain():
    world = random_world(0, text=False, plain=True)
    method = GradientDifference(forget_weight=2.0, retain_weight=3.0)
    leaves = [world.now[kind].logits.requires_grad_() for kind in ("forget", "retain")]
    found = torch.autograd.grad(method.loss(world.step())["loss"], leaves)
    for kind, gradient, weight in zip(("forget", "retain"), found, (-2, 3), strict=True):
        each = weight / int(world.rows(kind).tokens.predicts.sum())
        torch.testing.assert_close(gradient, each * descent(world, kind, lambda *_: 1.0))


def test_gradient_ascent_is_the_forget_half():
    step = random_world(1).step()
    assert GradientAscent().loss(step)["loss"] == GradientDifference().loss(step)["forget"]
