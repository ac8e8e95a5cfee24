import torch

from mechunlearn.unlearning import GradientDifference

from .cases import random_step


def test_defaults_are_the_paper_s():
    assert GradientDifference() == GradientDifference(forget_weight=1.0, retain_weight=1.0)


def test_gradient_climbs_forget_and_descends_retain():
    step = random_step(0, text=False)
    leaves = [case.logits.requires_grad_() for case in (step.forget, step.retain)]
    loss = GradientDifference(forget_weight=2.0, retain_weight=3.0).loss(step.scores())["loss"]
    forget, retain = torch.autograd.grad(loss, leaves)
    for case, gradient, weight in ((step.forget, forget, -2), (step.retain, retain, 3)):
        # d CE / d logits = (softmax − one-hot) / tokens, at the positions that predict.
        predicts, targets = case.tokens.predicts, case.tokens.targets
        expected = case.logits.detach()[predicts].softmax(-1)
        expected[torch.arange(len(targets)), targets] -= 1
        torch.testing.assert_close(gradient[predicts], weight * expected / len(targets))
