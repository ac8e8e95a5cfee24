import math
from dataclasses import replace

import pytest
import torch

from mechunlearn.unlearning import DPO, NPO
from mechunlearn.unlearning.losses import Answers

from .cases import random_step

betas = pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 4.0])


def gradients(beta: float, rejected: torch.Tensor, preferred: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The forget part and its gradients with respect to both S, of answer and alternative, so much risen."""
    scores = random_step(1).scores()
    assert scores.reference is not None
    assert scores.alternative is not None
    assert scores.alternative_reference is not None
    answer = (scores.reference + rejected).requires_grad_()
    other = (scores.alternative_reference + preferred).requires_grad_()
    forget, alternative = Answers(answer, scores.forget.tokens), Answers(other, scores.alternative.tokens)
    loss = DPO(beta=beta).loss(replace(scores, forget=forget, alternative=alternative))["forget"]
    return loss, *torch.autograd.grad(loss, (answer, other))


def full(value: float) -> torch.Tensor:
    return torch.full((6,), value, dtype=torch.float64)


def test_defaults_are_the_paper_s():
    assert DPO() == DPO(beta=0.1, forget_weight=1.0, retain_weight=1.0)


@betas
def test_at_the_start_model(beta):
    loss, answer, other = gradients(beta, full(0), full(0))
    assert loss.item() == pytest.approx(2 / beta * math.log(2), rel=1e-12)
    torch.testing.assert_close(answer, full(-1 / 6))
    torch.testing.assert_close(other, full(1 / 6))


@betas
def test_gradient_weight(beta):
    rejected, preferred = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    pairs = zip(rejected.tolist(), preferred.tolist(), strict=True)
    expected = torch.tensor([2 / (1 + math.exp(beta * (r - p))) for r, p in pairs], dtype=torch.float64)
    _, answer, other = gradients(beta, rejected, preferred)
    torch.testing.assert_close(answer * 6, -expected)
    torch.testing.assert_close(other * 6, expected)


def test_lets_go_once_the_alternative_is_preferred():
    loss, answer, other = gradients(1.0, full(1e4), full(-1e4))
    assert loss.item() == answer.abs().max() == other.abs().max() == 0


def test_is_npo_when_the_alternative_stays_as_likely():
    scores = replace(random_step(2).scores(), alternative=Answers(full(3.0), torch.ones(6, dtype=torch.long)))
    scores = replace(scores, alternative_reference=full(3.0))
    for name, value in NPO(beta=0.3).loss(scores).items():
        assert DPO(beta=0.3).loss(scores)[name].item() == pytest.approx(value.item(), rel=1e-12)
