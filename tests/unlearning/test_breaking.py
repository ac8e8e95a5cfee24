from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import load
from mechunlearn.sites import resolve
from mechunlearn.unlearning import METHODS, Breaking

from ..architectures import tiny
from .arithmetic import mean
from .formulas import broken, moved
from .worlds import ROWS, Made, World, at_start, random_world

OUTPUT = "blocks.1.hook_mlp_out"
forms = pytest.mark.parametrize("form", ["dot", "norm", "cosine"])


def with_states(world: World, now: torch.Tensor, before: torch.Tensor) -> World:
    def put(side: dict, state: torch.Tensor) -> dict:
        return side | {"forget": replace(side["forget"], states=side["forget"].states | {OUTPUT: state})}

    return replace(world, now=put(world.now, now), before=put(world.before, before))


def unit(world: World) -> torch.Tensor:
    return torch.nn.functional.normalize(world.before["forget"].states[OUTPUT], dim=-1) * 3


def test_defaults_are_the_papers():
    assert Breaking() == Breaking(form="dot", where="mlp_output", blocks=(6 / 32, 12 / 32), floor=0.0, power=1.0)
    assert METHODS["norm_breaking"] == Breaking(form="norm", where="residual")
    assert METHODS["cosine_breaking"] == Breaking(form="cosine", where="residual")


@forms
def test_is_one_at_the_start_where_tokens_are_as_long_as_each_other(form):
    world = random_world(0, plain=True)
    same = with_states(world, unit(world), unit(world))
    assert Breaking(form=form).forget(same.step()).item() == pytest.approx(1, rel=1e-12)


def test_starts_near_one_where_they_are_not():
    """⟨m, m⁰⟩/N² is then mean(‖m⁰‖²)/mean(‖m⁰‖)², which is at least 1 in every row."""
    world = at_start(random_world(1, plain=True))
    alone = [Breaking().forget(world.step([row])).item() for row in range(ROWS)]
    assert min(alone) >= 1 - 1e-12
    assert max(alone) < 2


@pytest.mark.parametrize("form", ["dot", "cosine"])
def test_is_nothing_where_orthogonal_or_opposed(form):
    world = random_world(2, plain=True)
    before = unit(world)
    across = torch.zeros_like(before)
    across[..., 0], across[..., 1] = -before[..., 1], before[..., 0]  # turned by a right angle in its first plane
    before[..., 2:] = 0
    assert Breaking(form=form).forget(with_states(world, across, before).step()).item() == pytest.approx(0, abs=1e-15)
    now = (-before).requires_grad_()
    value = Breaking(form=form).forget(with_states(world, now, before).step())
    assert value.item() == 0
    assert torch.autograd.grad(value, now)[0].abs().max() == 0


def test_a_floor_below_zero_turns_further():
    world = random_world(3, plain=True)
    opposed = with_states(world, -unit(world), unit(world))
    assert Breaking(floor=-5.0).forget(opposed.step()).item() == pytest.approx(-1, rel=1e-12)
    assert Breaking(floor=-0.5).forget(opposed.step()).item() == pytest.approx(-0.5, rel=1e-12)


@forms
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_power(form, power):
    world = random_world(4, plain=True)
    doubled = with_states(world, 2 * unit(world), unit(world))
    expected = 1.0 if form == "cosine" else 2.0**power
    assert Breaking(form=form, power=power).forget(doubled.step()).item() == pytest.approx(expected, rel=1e-12)


@forms
def test_settings_enter_the_formula(form):
    world = random_world(5)
    method = Breaking(form=form, floor=0.1, power=1.5)
    assert method.forget(world.step()).item() == pytest.approx(broken(method, world), rel=1e-12)


@forms
def test_a_row_does_not_depend_on_its_neighbours(form):
    world, method = random_world(6, plain=True), Breaking(form=form)
    counts = world.rows("forget").valid.sum(dim=1).tolist()
    alone = [method.forget(world.step([row])).item() for row in range(ROWS)]
    together = sum(value * count for value, count in zip(alone, counts, strict=True)) / sum(counts)
    assert method.forget(world.step()).item() == pytest.approx(together, rel=1e-12)


class Watched(Made):
    """Notes which hooks were asked for."""

    def see(self, kind, states=(), logits=True):
        self.asked, self.scored = tuple(states), logits
        return super().see(kind, states, logits)


@pytest.mark.parametrize(
    ("where", "blocks", "hooks"),
    [
        ("mlp_output", (0, 3), ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out")),
        ("mlp_output", (0.5, 1.0), ("blocks.2.hook_mlp_out", "blocks.3.hook_mlp_out")),
        ("residual", (2, 4), ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")),
        ("residual", (0, 2), ("blocks.0.hook_resid_post",)),
    ],
)
def test_averages_over_the_blocks_and_looks_no_further(where, blocks, hooks):
    world = random_world(7, plain=True)
    method = Breaking(where=where, blocks=blocks, form="cosine")
    step = Watched(world, world.pieces()[0])
    found = method.forget(step).item()
    assert step.asked == hooks
    assert not step.scored
    one_each = [with_states(world, world.now["forget"].states[h], world.before["forget"].states[h]) for h in hooks]
    assert found == pytest.approx(mean([Breaking(form="cosine").forget(one.step()).item() for one in one_each]))


def test_the_retain_term_is_the_distance_of_representations():
    world = random_world(8)
    expected = mean([moved(world, "retain", f"blocks.{layer}.hook_resid_post", 2, 1 / 6) for layer in range(4)])
    assert Breaking().loss(world.step())["retain"].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("blocks", "expected"), [((6 / 32, 12 / 32), [0, 1]), ((2, 4), [0, 1, 2, 3])])
def test_trains_the_mlps_up_to_the_last_block(blocks, expected):
    model = load(tiny("llama"))
    found = [slot for name in Breaking(blocks=blocks).trained(model) for slot in resolve(name, model).slots]
    names = [f"model.layers.{b}.mlp.{part}_proj.weight" for b in expected for part in ("gate", "up", "down")]
    assert [slot.name for slot in found] == names


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "angle"}, "form='angle' is not one of dot, norm, cosine"),
        ({"where": "attention"}, "where='attention' is not one of mlp_output, residual"),
        ({"power": 0.0}, "power must be above 0"),
        ({"power": 2.0, "floor": -1.0}, "power must be above 0, and 1 where the floor is below 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Breaking(**wrong)
