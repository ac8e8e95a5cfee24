"""The training loop, against hand-written updates and its own promises."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mechunlearn.errors import NotFiniteError, UserError
from mechunlearn.training import Phase, Settings, Trainer, borrowed, train


class Net(nn.Module):
    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(3, 5)
        self.drop = nn.Dropout(dropout)
        self.outer = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.drop(torch.tanh(self.inner(x))))


def data(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


def squared(model: nn.Module) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    return lambda batch: {"loss": (model(batch[0]) - batch[1]).square().mean()}


def forever(*batches: object) -> Iterator[object]:
    return itertools.cycle(batches)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], **close: float) -> bool:
    return all(torch.allclose(one[name], other[name], **close) for name in one)


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


def steps(trainer: Trainer, *batches: object) -> list[dict[str, float]]:
    return [trainer.advance([batch]) for batch in batches]


def numbered(count: int) -> list[tuple[Tensor, Tensor]]:
    return [data(4, seed) for seed in range(count)]


def test_normalised_steps_are_as_long_as_the_learning_rate() -> None:
    model = Net()
    start = weights(model)
    trainer = Trainer(model, [Phase(squared(model), Settings(3, 0.3, "sgd", clip=None, normalise=True))])
    (row,) = steps(trainer, data(8))
    moved = math.sqrt(sum(float((weights(model)[name] - start[name]).square().sum()) for name in start))
    assert moved == pytest.approx(0.3, rel=1e-5)
    assert row["gradient_norm"] != pytest.approx(1)
    still = weights(model)
    zero = Trainer(model, [Phase(lambda _: {"loss": 0 * model(data(2)[0]).sum()}, trainer.phases[0].settings)])
    assert steps(zero, data(2))[0]["gradient_norm"] == 0
    assert same(weights(model), still, atol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_state_and_restore_go_back_bit_for_bit(optimizer: str) -> None:
    model = Net(dropout=0.4)
    settings = Settings(9, 0.02, optimizer, weight_decay=0.1, schedule="cosine", warmup=2)
    trainer = Trainer(model, [Phase(squared(model), settings)], seed=3)
    steps(trainer, *numbered(3))
    kept = trainer.state()
    first = steps(trainer, *numbered(4))
    after = weights(model)
    trainer.scale = 0.25
    steps(trainer, *numbered(2))
    trainer.restore(kept)
    assert (trainer.step, trainer.scale) == (3, 1.0)
    assert steps(trainer, *numbered(4)) == first
    assert all(torch.equal(after[name], tensor) for name, tensor in weights(model).items())
    # What was given out is a copy, which later steps leave alone; and another trainer goes on from it.
    twin = Net(seed=8, dropout=0.4)
    other = Trainer(twin, [Phase(squared(twin), settings)], seed=3)
    other.restore(kept)
    assert steps(other, *numbered(4)) == first
    assert all(torch.equal(after[name], tensor) for name, tensor in weights(twin).items())


def test_restoring_the_beginning_forgets_what_the_optimiser_has_gathered() -> None:
    model = Net()
    trainer = Trainer(model, [Phase(squared(model), Settings(9, 0.02))])
    start = trainer.state()
    first = steps(trainer, *numbered(3))
    trainer.restore(start)
    assert steps(trainer, *numbered(3)) == first


def test_scale_multiplies_every_learning_rate() -> None:
    model = Net()
    phases = [
        Phase(squared(model), Settings(4, 0.1, "sgd", schedule="linear")),
        Phase(squared(model), Settings(4, 0.02, "sgd"), name="second_"),
    ]
    trainer = Trainer(model, phases)
    trainer.scale = 0.5
    rows = steps(trainer, *numbered(2))
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.05, 0.0375])
    assert [row["second_learning_rate"] for row in rows] == pytest.approx([0.01, 0.01])


def test_phases_are_updates_one_after_the_other_with_optimisers_of_their_own() -> None:
    model, twin, batch = Net(), Net(), data(8)

    def away(net: nn.Module) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
        return lambda b: {"loss": -net(b[0]).mean(), "part": torch.tensor(3.0)}

    phases = [
        Phase(squared(model), Settings(2, 0.1, "sgd", clip=None)),
        Phase(away(model), Settings(2, 0.01, clip=None), name="away_"),
    ]
    row = Trainer(model, phases).advance([batch])
    first, second = torch.optim.SGD(twin.parameters(), 0.1), torch.optim.AdamW(twin.parameters(), 0.01, weight_decay=0)
    for optimizer, loss in ((first, squared(twin)), (second, away(twin))):
        optimizer.zero_grad()
        loss(batch)["loss"].backward()
        optimizer.step()
    assert same(weights(model), weights(twin), atol=1e-7)
    assert set(row) == {
        "loss", "gradient_norm", "learning_rate", "away_loss", "away_part", "away_gradient_norm", "away_learning_rate",
    }  # fmt: skip
    assert row["away_part"] == 3


def test_before_step_sees_the_whole_gradient_once() -> None:
    model, calls = Net(), []

    def halve() -> None:
        calls.append(True)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(0.5)

    start, twin = weights(model), Net()
    x, y = data(8)
    settings = Settings(1, 0.1, "sgd", clip=None)
    pieces = list(zip(x.chunk(4), y.chunk(4), strict=True))
    Trainer(model, [Phase(squared(model), settings, before_step=halve)]).advance(pieces)
    Trainer(twin, [Phase(squared(twin), settings)]).advance([(x, y)])
    assert calls == [True]
    for name, tensor in weights(model).items():
        torch.testing.assert_close(2 * (tensor - start[name]), weights(twin)[name] - start[name], rtol=1e-3, atol=1e-6)


def test_pieces_are_averaged_in_the_record_too() -> None:
    model = Net()
    x, y = data(8)
    row = Trainer(model, [Phase(squared(model), Settings(1, 0.1))]).advance([(x[:4], y[:4]), (x[4:], y[4:])])
    assert row["loss"] == pytest.approx(squared(Net())((x, y))["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("fails", ["loss", "gradient", "error"])
def test_a_failed_update_leaves_weights_optimiser_and_gradients_alone(fails: str) -> None:
    model = Net()
    broken = False

    def loss(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        found = squared(model)(batch)["loss"]
        if broken and fails == "loss":
            found = found * math.nan
        if broken and fails == "gradient":
            found = found + (model.inner.weight * 0).abs().sqrt().sum()
        if broken and fails == "error":
            raise RuntimeError("something else")
        return {"loss": found}

    trainer = Trainer(model, [Phase(loss, Settings(9, 0.02))])
    steps(trainer, *numbered(2))
    before = trainer.state()
    broken = True
    with pytest.raises(RuntimeError if fails == "error" else NotFiniteError):
        trainer.advance([data(4)])
    after = trainer.state()
    assert set(after) == set(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    broken = False
    assert math.isfinite(trainer.advance([data(4)])["loss"])


def test_only_the_given_parameters_are_trained() -> None:
    model = Net()
    start = weights(model)
    with borrowed(model):
        trainer = Trainer(model, [Phase(squared(model), Settings(2, 0.1))], parameters=[model.outer.bias])
        steps(trainer, *numbered(2))
        assert list(trainer.parameters) == ["outer.bias"]
        assert [name for name, p in model.named_parameters() if p.requires_grad] == ["outer.bias"]
    assert {name for name, tensor in weights(model).items() if not torch.equal(tensor, start[name])} == {"outer.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())
