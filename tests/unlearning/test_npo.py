import math
from dataclasses import replace

import pytest
import torch

from mechunlearn.unlearning import NPO
from mechunlearn.unlearning.losses import Answers

from .cases import random_step

betas = pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 4.0])


def forget_gradient(beta: float, risen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The forget part and its gradient with respect to each fact's S, when S has risen by this much."""
    scores = random_step(1).scores()
    assert scores.reference is not None
    summed = (scores.reference + risen).requires_grad_()
    loss = NPO(beta=beta).loss(replace(scores, forget=Answers(summed, scores.forget.tokens)))["forget"]
    return loss, torch.autograd.grad(loss, summed)[0]


def test_defaults_are_the_paper_s():
    assert NPO() == NPO(beta=0.1, forget_weight=1.0, retain_weight=1.0)


@betas
def test_at_the_start_model_it_is_ascent_on_summed_nll(beta):
    loss, gradient = forget_gradient(beta, torch.zeros(6, dtype=torch.float64))
    assert loss.item() == pytest.approx(2 / beta * math.log(2), rel=1e-12)
    torch.testing.assert_close(gradient, torch.full((6,), -1 / 6, dtype=torch.float64))


def test_value_at_the_start_model_for_the_default_beta():
    assert forget_gradient(0.1, torch.zeros(6, dtype=torch.float64))[0].item() == pytest.approx(13.8629, abs=1e-4)


@betas
def test_gradient_weight(beta):
    risen = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0, 20.0], dtype=torch.float64)
    weights = [-2 * (1 - 1 / (1 + math.exp(-beta * value))) for value in risen.tolist()]
    _, gradient = forget_gradient(beta, risen)
    torch.testing.assert_close(gradient * 6, torch.tensor(weights, dtype=torch.float64))


def test_lets_go_of_what_is_forgotten():
    loss, gradient = forget_gradient(1.0, torch.full((6,), 1e4, dtype=torch.float64))
    assert loss.item() == 0
    assert gradient.abs().max() == 0


def test_pulls_twice_as_hard_on_what_was_learned_better():
    _, gradient = forget_gradient(1.0, torch.full((6,), -1e4, dtype=torch.float64))
    torch.testing.assert_close(gradient * 6, torch.full((6,), -2.0, dtype=torch.float64))


def test_small_beta_is_gradient_ascent_wherever_it_is():
    _, gradient = forget_gradient(1e-9, torch.linspace(-5, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(gradient * 6, torch.full((6,), -1.0, dtype=torch.float64))
