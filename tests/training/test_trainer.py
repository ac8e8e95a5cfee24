"""Training step by step: phases, pieces, going back, and steps that fail."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mechunlearn.errors import NotFiniteError
from mechunlearn.training import Phase, Settings, Trainer, borrowed

from .nets import Net, data, same, squared, weights


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


def test_another_user_of_accelerate_in_the_process_changes_nothing() -> None:
    """Accelerate's state is one a process: a trainer that took part in it would accumulate by the other's count."""
    accelerate = pytest.importorskip("accelerate")

    def trained() -> dict[str, Tensor]:
        model = Net()
        trainer = Trainer(model, [Phase(squared(model), Settings(3, 0.1))])
        for _ in range(3):
            trainer.advance(numbered(2))
        return weights(model)

    alone = trained()
    try:
        other = accelerate.Accelerator(gradient_accumulation_steps=7, mixed_precision="bf16", cpu=True)
        with other.accumulate(Net()):
            beside = trained()
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
