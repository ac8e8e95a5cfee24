"""How a stage trains: the formula, optimisers, precision, checkpointing, pieces, evaluations."""

import pytest
import torch
from torch import Tensor

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf, load
from mechunlearn.unlearning import NPO, CircuitBreakers, GradientDifference, unlearn
from mechunlearn.unlearning.data.rows import trained
from mechunlearn.unlearning.method import Method
from mechunlearn.unlearning.step import Step

from .conftest import TEXT
from .stages import QUICK, close, run
from .test_resume import digest


def test_one_step_is_the_formula_written_out(knowing, facts):
    """All eight forget rows and all ten retain rows in one step of plain descent, against a loss of its own."""
    retain = type(facts)([fact for fact in facts.retain if fact.id != "gustav"])  # 2 near, 2 far: eight rows
    result = unlearn(
        knowing, GradientDifference(forget_weight=0.7, retain_weight=1.3), facts.forget, retain,
        **QUICK | {"steps": 1, "optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1, "clip": None},
    )  # fmt: skip
    twin = clone(knowing)

    def cross_entropy(rows) -> Tensor:
        total, count = torch.zeros(()), 0
        for fact in rows:
            prompt, answer = (knowing.tokenizer(part)["input_ids"] for part in (fact.prompt, fact.answer))
            ids = torch.tensor([prompt + answer])
            scores = hf(twin)(input_ids=ids).logits[0].log_softmax(-1)
            for place in range(len(prompt), len(prompt) + len(answer)):
                total = total - scores[place - 1, ids[0, place]]
                count += 1
        return total / count

    loss = -0.7 * cross_entropy(trained(facts.forget)) + 1.3 * cross_entropy(trained(retain))
    loss.backward()
    with torch.no_grad():
        for parameter in hf(twin).parameters():
            parameter -= 0.1 * parameter.grad
    close(result.model, twin, rtol=1e-4, atol=1e-6)
    assert result.frame["loss"].iloc[-1] == pytest.approx(loss.item(), rel=1e-5)


def test_optimisers_differ_and_clipping_bounds_a_step(knowing, facts):
    found = {name: run(knowing, facts, optimizer=name, weight_decay=0.1).model for name in ("adamw", "adam", "sgd")}
    assert len({digest(model) for model in found.values()}) == 3
    options = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 10.0, "clip": 1e-4, "steps": 1}
    short = run(knowing, facts, GradientDifference(), **options).model
    squares = [(a - b).square().sum() for a, b in zip(hf(short).parameters(), hf(knowing).parameters(), strict=True)]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-2)


def test_bf16_keeps_masters_in_fp32(knowing, facts):
    fine = run(knowing, facts, precision="bf16", learning_rate=1e-5)
    weights = list(hf(fine.model).parameters())
    assert {parameter.dtype for parameter in weights} == {torch.float32}
    # Steps far below what bfloat16 could hold are not lost.
    change = torch.cat([(a - b).flatten() for a, b in zip(weights, hf(knowing).parameters(), strict=True)]).abs()
    assert 0 < change.max() < 1e-4
    coarse, exact = (run(knowing, facts, precision=precision) for precision in ("bf16", "no"))
    assert coarse.frame["loss"].iloc[1] != exact.frame["loss"].iloc[1]
    assert coarse.frame["loss"].iloc[1] == pytest.approx(exact.frame["loss"].iloc[1], rel=0.05)


def test_models_below_fp32_are_refused(knowing, facts):
    half = load(hf(clone(knowing)).bfloat16(), dtype="bfloat16", tokenizer=knowing.tokenizer, device="cpu")
    with pytest.raises(UserError, match=r"cannot train .* in torch\.bfloat16"):
        run(half, facts)


class Inside(Method):
    """Wants activations of the middle of a block and nothing behind them, and others with the logits."""

    name = "inside"
    paper = "none"

    def forget(self, step: Step) -> Tensor:
        hooks = ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_out"]
        near = step.see("forget", hooks, logits=False)
        whole = step.see("forget", ["blocks.0.hook_resid_post"])
        parts = [*(near.states[hook] for hook in hooks), whole.states["blocks.0.hook_resid_post"]]
        return sum((near.over_tokens(part.square().mean(-1)) for part in parts), -whole.cross_entropy)


@pytest.mark.parametrize("method", [NPO(retain="representation"), Inside(), CircuitBreakers()], ids=lambda m: m.name)
def test_checkpointing_changes_nothing(knowing, facts, method, monkeypatch):
    calls = 0
    original = torch.utils.checkpoint.checkpoint

    def counted(*arguments, **named):
        nonlocal calls
        calls += 1
        return original(*arguments, **named)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    plain = run(knowing, facts, method, retain_text=TEXT)
    assert calls == 0
    result = run(knowing, facts, method, retain_text=TEXT, checkpointing=True)
    assert calls > 0
    close(result.model, plain.model, rtol=1e-6, atol=1e-7)
    assert not hf(result.model).is_gradient_checkpointing


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "learning_rate": 0.02}], ids=["adamw", "sgd"])
def test_accumulation_changes_nothing(knowing, facts, options):
    whole = run(knowing, facts, retain_text=TEXT, **options)
    for count in (3, 8):
        split = run(knowing, facts, retain_text=TEXT, accumulation=count, **options)
        close(split.model, whole.model, rtol=1e-3, atol=2e-5)
        assert split.frame["tokens"].tolist() == whole.frame["tokens"].tolist()
        assert split.frame["loss"].tolist()[1:] == pytest.approx(whole.frame["loss"].tolist()[1:], rel=1e-3)


def test_evaluations_at_the_start_at_the_end_and_between(knowing, facts):
    assert run(knowing, facts, steps=3, evaluate_every=50).frame["step"].tolist() == [0, 3]
    assert run(knowing, facts, steps=7, evaluate_every=3).frame["step"].tolist() == [0, 3, 6, 7]
    assert run(knowing, facts, steps=1, evaluate_every=1).frame["step"].tolist() == [0, 1]


def test_a_forget_set_of_one_fact(knowing, facts):
    one = type(facts)([facts.forget[0]])
    result = unlearn(knowing, NPO(), one, facts.retain, **QUICK | {"steps": 60, "learning_rate": 6e-3})
    assert result.frame["forget_recall"].iloc[-1] == 0
    assert len(one.questions()) == 1
