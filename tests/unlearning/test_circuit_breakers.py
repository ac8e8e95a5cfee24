from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf, load
from mechunlearn.unlearning import CircuitBreakers, unlearn

from ..architectures import tiny
from .arithmetic import mean
from .formulas import turned
from .worlds import World, at_start, random_world

TARGETS = ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")


def with_states(world: World, now: torch.Tensor, before: torch.Tensor) -> World:
    """The same activations at both targets."""

    def put(side: dict, state: torch.Tensor) -> dict:
        states = side["forget"].states | dict.fromkeys(TARGETS, state)
        return side | {"forget": replace(side["forget"], states=states)}

    return replace(world, now=put(world.now, now), before=put(world.before, before))


def basis_states(world: World) -> torch.Tensor:
    """Each token of a row points along an axis of its own."""
    count, width = world.rows("forget").valid.shape
    return torch.eye(width, dtype=torch.float64)[None].repeat(count, 1, 1)


def test_defaults_are_the_papers():
    expected = CircuitBreakers(
        targets=(10 / 32, 20 / 32), lora_rank=16, lora_alpha=16, forget_weight=10.0, retain_weight=10.0, retain="own"
    )
    assert CircuitBreakers() == expected


@pytest.mark.parametrize(("progress", "weights"), [(0.0, (10, 0)), (0.5, (7.5, 2.5)), (1.0, (5, 5))])
def test_schedule(progress, weights):
    assert CircuitBreakers().weights(progress) == weights


def test_at_the_start_the_cosine_is_one_without_slope_and_nothing_has_moved():
    world = at_start(random_world(0, plain=True))
    leaves = world.leaves()
    found = CircuitBreakers().loss(world.step())
    assert found["forget"].item() == pytest.approx(1, rel=1e-12)
    assert found["retain"].item() == found["text"].item() == 0
    gradients = torch.autograd.grad(found["forget"], leaves, allow_unused=True, materialize_grads=True)
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-15


def test_every_token_is_compared_with_itself_alone():
    """Tokens that have changed places are as far from what they were as can be; over all pairs they seem near."""
    world = random_world(1, plain=True)
    before = basis_states(world)
    now = before.roll(1, dims=1)
    swapped = with_states(world, now, before)
    assert CircuitBreakers().forget(swapped.step()).item() == 0
    over_all_pairs = torch.einsum("b t d, b s d -> b t s", now, before).mean()
    assert over_all_pairs > 0


def test_long_tokens_count_no_more_than_short_ones():
    world = random_world(2)
    stretch = torch.rand(*world.rows("forget").valid.shape, 1, dtype=torch.float64) * 100 + 0.01
    state, before = world.now["forget"].states[TARGETS[0]], world.before["forget"].states[TARGETS[0]]
    same = CircuitBreakers().forget(with_states(world, state, before).step()).item()
    stretched = with_states(world, state * stretch, before / stretch)
    assert CircuitBreakers().forget(stretched.step()).item() == pytest.approx(same, rel=1e-9)


def test_lets_go_of_what_points_the_other_way():
    world = random_world(3)
    before = world.before["forget"].states[TARGETS[0]]
    now = (-2 * before).requires_grad_()
    value = CircuitBreakers().forget(with_states(world, now, before).step())
    assert value.item() == 0
    assert torch.autograd.grad(value, now)[0].abs().max() == 0


@pytest.mark.parametrize(("targets", "places"), [((1, 4), (0, 3)), ((0, 0.0, 1), (0,)), ((4,), (3,)), ((2, 0.5), (1,))])
def test_targets_are_the_residual_in_front_of_blocks(targets, places):
    world = random_world(4)
    found = CircuitBreakers(targets=targets).forget(world.step()).item()
    assert found == pytest.approx(mean([turned(world, f"blocks.{place}.hook_resid_post") for place in places]))


def test_there_must_be_targets():
    with pytest.raises(UserError, match="no targets"):
        CircuitBreakers(targets=())


@pytest.mark.parametrize(("targets", "blocks"), [((10 / 32, 20 / 32), 4), ((1,), 2), ((1, 2), 3)])
def test_adapts_every_linear_map_up_to_the_last_target(targets, blocks):
    model = load(tiny("llama"))
    before = {name: parameter.clone() for name, parameter in hf(model).named_parameters()}
    with CircuitBreakers(targets=targets, lora_rank=3).adapted(model, seed=0) as parameters:
        assert parameters is not None
        assert len(parameters) == blocks * 7 * 2  # seven maps a block, two matrices each
        for parameter in parameters:
            parameter.data += 0.1
    moved = {name for name, parameter in hf(model).named_parameters() if not torch.equal(parameter, before[name])}
    assert {name for name in moved if "proj" not in name} == set()
    assert {int(name.split(".")[2]) for name in moved} == set(range(blocks))
    assert set(before) == {name for name, _ in hf(model).named_parameters()}


def test_adapters_change_hardly_anything_at_first():
    model = load(tiny("llama"))
    ids = torch.arange(3, 11)[None]
    before = clone(model)(ids).detach()
    with CircuitBreakers().adapted(model, seed=0):
        moved = float((model(ids) - before).detach().abs().max())
    assert 0 < moved < 1e-2 * float(before.abs().max())


def test_without_a_rank_there_are_no_adapters():
    with CircuitBreakers(lora_rank=None).adapted(load(tiny("llama")), seed=0) as parameters:
        assert parameters is None


def test_adapters_leave_the_maximum_of_the_cosine(knowing, facts):
    """With B at zero there is no gradient in float32, and a run would end where it began."""
    method = CircuitBreakers(lora_rank=2, lora_alpha=2, targets=(1, 2))
    run = unlearn(
        knowing, method, facts.forget, facts.retain, steps=30, batch_size=8, learning_rate=3e-2, evaluate_every=15,
        progress=False,
    )  # fmt: skip
    cosines = run.frame["loss_forget"].tolist()[1:]
    assert cosines[-1] < 0.9
