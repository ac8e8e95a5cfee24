"""Training from a stream of batches, against hand-written updates and its own promises."""

import math

import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import Tensor

from mechunlearn.errors import UserError
from mechunlearn.training import Settings, train

from .nets import Net, data, forever, same, squared, weights


def test_sgd_is_the_formula() -> None:
    model, batch = Net(), data(8)
    expected = weights(model)
    twin = Net()
    squared(twin)(batch)["loss"].backward()
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None
        expected[name] -= 0.1 * parameter.grad
    frame = train(model, forever(batch), squared(model), Settings(1, 0.1, "sgd", clip=None))
    assert same(weights(model), expected, atol=1e-6)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters() if p.grad is not None))
    assert frame["gradient_norm"].item() == pytest.approx(norm, rel=1e-5)


@hypothesis_settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from(["adamw", "adam", "sgd"]),
    st.sampled_from(["constant", "linear", "cosine"]),
)
def test_accumulation_equals_one_large_batch(parts: int, optimizer: str, schedule: str) -> None:
    x, y = data(4 * parts)
    whole, pieces = Net(), Net()
    train(whole, forever((x, y)), squared(whole), Settings(5, 0.01, optimizer, schedule=schedule))
    frame = train(
        pieces,
        forever(*zip(x.chunk(parts), y.chunk(parts), strict=True)),
        squared(pieces),
        Settings(5, 0.01, optimizer, schedule=schedule, accumulation=parts),
    )
    assert same(weights(whole), weights(pieces), atol=1e-5)
    assert len(frame) == 5


def test_loss_falls_and_frame_is_tidy() -> None:
    model, batch = Net(), data(16)
    frame = train(
        model,
        forever(batch),
        lambda b: squared(model)(b) | {"constant": torch.tensor(2.0)},
        Settings(60, 0.05),
    )
    assert list(frame) == ["step", "loss", "constant", "learning_rate", "gradient_norm", "seconds"]
    assert frame["step"].tolist() == list(range(1, 61))
    assert frame["loss"].iloc[-1] < 0.2 * frame["loss"].iloc[0]
    assert (frame["constant"] == 2).all() and frame["seconds"].is_monotonic_increasing


def test_only_the_trainable_parameters_move() -> None:
    model, batch = Net(), data(8)
    start = weights(model)
    train(
        model,
        forever(batch),
        squared(model),
        Settings(3, 0.1, weight_decay=0.1),
        trainable=lambda name: name.startswith("outer"),
    )
    moved = {name for name, tensor in weights(model).items() if not torch.equal(tensor, start[name])}
    assert moved == {"outer.weight", "outer.bias"}


def test_frozen_parameters_stay_frozen_by_default() -> None:
    model = Net()
    model.inner.requires_grad_(False)
    start = weights(model)
    train(model, forever(data(8)), squared(model), Settings(2, 0.1))
    assert torch.equal(weights(model)["inner.weight"], start["inner.weight"])
    assert not torch.equal(weights(model)["outer.weight"], start["outer.weight"])


def test_weight_decay_leaves_biases() -> None:
    model = Net()
    start = weights(model)
    zero = lambda _: {"loss": 0 * sum(p.sum() for p in model.parameters())}  # noqa: E731
    train(model, forever(data(2)), zero, Settings(1, 0.1, weight_decay=0.5))
    assert torch.allclose(weights(model)["inner.weight"], 0.95 * start["inner.weight"])
    assert torch.equal(weights(model)["inner.bias"], start["inner.bias"])


@pytest.mark.parametrize("seed", [0, 7])
def test_same_seed_same_weights(seed: int) -> None:
    first, again, other = (Net(dropout=0.5) for _ in range(3))
    for model, chosen in ((first, seed), (again, seed), (other, seed + 1)):
        train(model, forever(data(8)), squared(model), Settings(4, 0.05, seed=chosen))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not same(weights(first), weights(other))


def test_the_callers_random_state_is_untouched() -> None:
    model = Net(dropout=0.5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(model, forever(data(8)), squared(model), Settings(2, 0.05, seed=9))
    assert torch.equal(torch.rand(4), expected)


def test_schedules_and_warmup() -> None:
    def rates(**kind: object) -> list[float]:
        model = Net()
        settings = Settings(10, 1e-3, **kind)  # type: ignore[arg-type]
        return train(model, forever(data(4)), squared(model), settings)["learning_rate"].tolist()

    assert rates() == [1e-3] * 10
    assert rates(warmup=2)[:4] == pytest.approx([0, 5e-4, 1e-3, 1e-3])
    assert rates(schedule="linear") == pytest.approx([1e-3 * (10 - step) / 10 for step in range(10)])
    assert rates(schedule="cosine") == pytest.approx([5e-4 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])


def test_clipping_bounds_the_update() -> None:
    model, batch = Net(), data(8)
    start = weights(model)
    frame = train(model, forever((batch[0], 1e3 * batch[1])), squared(model), Settings(1, 1.0, "sgd", clip=0.25))
    moved = math.sqrt(sum(float((weights(model)[name] - start[name]).square().sum()) for name in start))
    assert moved == pytest.approx(0.25, rel=1e-3)
    assert frame["gradient_norm"].item() > 1


def test_nan_is_named_by_its_step_and_the_model_is_given_back() -> None:
    model = Net()
    model.drop.eval()
    model.inner.bias.requires_grad_(False)
    model.outer.weight.grad = torch.ones_like(model.outer.weight)
    good, bad = data(4), (data(4)[0], torch.full((4, 1), torch.nan))
    with pytest.raises(UserError, match="step 3 of 9"):
        train(model, forever(good, good, bad), squared(model), Settings(9, 0.01))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert model.outer.weight.grad.sum() == 5 and model.inner.weight.grad is None


def test_interruption_gives_the_model_back() -> None:
    model = Net().eval()

    def interrupt(_: object) -> dict[str, Tensor]:
        assert model.training
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, forever(data(4)), interrupt, Settings(2, 0.1), trainable=lambda name: "outer" in name)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_watch_stops_and_sees_an_evaluating_model() -> None:
    model, seen = Net(dropout=0.5), []

    def watch(step: int) -> bool:
        seen.append((step, model.training, torch.is_grad_enabled()))
        return step >= 6

    frame = train(model, forever(data(4)), squared(model), Settings(50, 0.01), watch=watch, watch_every=3)
    assert seen == [(3, False, False), (6, False, False)]
    assert len(frame) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion'.*adamw, adam, sgd"),
        ({"schedule": "step"}, "schedule 'step'"),
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"clip": 0.0}, "clip"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**({"steps": 3, "learning_rate": 0.1} | change))  # type: ignore[arg-type]


def test_bad_use_is_named() -> None:
    model = Net()
    with pytest.raises(UserError, match="nothing to train"):
        train(model, forever(data(2)), squared(model), Settings(1, 0.1), trainable=lambda _: False)
    with pytest.raises(UserError, match="ran out at step 2 of 3"):
        train(model, iter([data(2)]), squared(model), Settings(3, 0.1))
    with pytest.raises(UserError, match=r"inner\.weight.*bfloat16"):
        train(model.bfloat16(), forever(data(2)), squared(model), Settings(1, 0.1))


def test_bf16_computation_keeps_fp32_weights() -> None:
    model = Net()
    frame = train(model, forever(data(16)), squared(model), Settings(40, 0.05, precision="bf16"))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert frame["loss"].iloc[-1] < 0.5 * frame["loss"].iloc[0]
