from dataclasses import replace

import pytest
import torch

from mechunlearn.unlearning import UNDIAL

from .arithmetic import distribution
from .formulas import forget_gradient
from .worlds import VOCABULARY, at_start, random_world


def test_defaults_are_the_papers():
    assert UNDIAL() == UNDIAL(beta=10.0, forget_weight=1.0, retain_weight=0.0)


def test_at_the_start_without_dial_it_is_the_entropy_with_no_gradient():
    world = at_start(random_world(0, plain=True))
    value, found = forget_gradient(UNDIAL(beta=0.0), world)
    lines = world.before["forget"].logits[world.rows("forget").tokens.predicts]
    entropies = torch.distributions.Categorical(logits=lines).entropy()
    assert value == pytest.approx(entropies.mean().item(), rel=1e-12)
    assert found["forget"].abs().max() < 1e-16


def test_gradient_is_what_is_said_less_what_is_taught():
    world = random_world(1, plain=True)
    tokens = world.rows("forget").tokens
    _, found = forget_gradient(UNDIAL(beta=3.0), world)
    expected = torch.zeros_like(found["forget"])
    for (row, place), target in zip(tokens.predicts.nonzero().tolist(), tokens.targets.tolist(), strict=True):
        taught = world.before["forget"].logits[row, place].clone()
        taught[target] -= 3.0
        said = distribution(world.now["forget"].logits[row, place])
        pairs = zip(said, distribution(taught), strict=True)
        expected[row, place] = torch.tensor([p - q for p, q in pairs], dtype=torch.float64) / len(tokens.targets)
    torch.testing.assert_close(found["forget"], expected)


def test_is_at_rest_where_only_the_answer_was_turned_down():
    world = random_world(2)
    tokens = world.rows("forget").tokens
    taught = world.before["forget"].logits.clone()
    taught[(*tokens.predicts.nonzero(as_tuple=True), tokens.targets)] -= 10.0
    learned = replace(world, now=world.now | {"forget": replace(world.now["forget"], logits=taught)})
    _, found = forget_gradient(UNDIAL(), learned)
    assert found["forget"].abs().max() < 1e-16


def test_the_start_model_is_left_as_it_is():
    world = random_world(3)
    before = world.before["forget"].logits.clone().requires_grad_()
    same = replace(world, before=world.before | {"forget": replace(world.before["forget"], logits=before)})
    now = same.now["forget"].logits.requires_grad_()
    UNDIAL().forget(same.step()).backward()
    assert before.grad is None
    assert now.grad is not None
    assert torch.equal(before, world.before["forget"].logits)


def test_a_strong_dial_teaches_the_rest_of_the_distribution():
    world = random_world(4, plain=True)
    tokens = world.rows("forget").tokens
    uniform = torch.zeros_like(world.before["forget"].logits)
    flat = replace(world, before=world.before | {"forget": replace(world.before["forget"], logits=uniform)})
    value, _ = forget_gradient(UNDIAL(beta=1e3), flat)
    lines = world.now["forget"].logits[tokens.predicts].log_softmax(-1)
    others = (lines.sum(-1) - lines.gather(1, tokens.targets[:, None])[:, 0]) / (VOCABULARY - 1)
    assert value == pytest.approx(-others.mean().item(), rel=1e-12)
