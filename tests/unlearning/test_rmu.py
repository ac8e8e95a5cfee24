import math
from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.facts import Facts
from mechunlearn.models import load
from mechunlearn.sites import resolve
from mechunlearn.unlearning import RMU, unlearn

from ..architectures import tiny
from .worlds import ROWS, WIDTH, World, at_start, random_world

HOOK = "blocks.1.hook_resid_post"
LONG = RMU(steering=6.5)
kinds = pytest.mark.parametrize(
    "method",
    [replace(LONG, **more) for more in ({}, {"entries": "normal"}, {"vectors": "per_fold"}, {"vectors": "orthogonal"})],
    ids=["shared", "normal", "per fold", "orthogonal"],
)


def steered(world: World, method: RMU, seed: int = 0) -> World:
    """The world where all forget data have gone where they are sent."""
    found = world.now["forget"]
    assert method.steering is not None
    goal = method.steering * method.directions(world.rows("forget").fold, WIDTH, seed)
    there = goal[:, None, :].expand_as(found.states[HOOK]).clone()
    return replace(world, now=world.now | {"forget": replace(found, states=found.states | {HOOK: there})})


def folds(count: int) -> torch.Tensor:
    return torch.arange(-1, count)


def test_defaults_are_the_recipe_for_zephyr():
    expected = RMU(
        layer=7 / 32,
        steering=None,
        relative=3.44,
        retain_weight=1200.0,
        vectors="shared",
        entries="uniform",
        retain="own",
    )
    assert RMU() == expected


@kinds
def test_is_at_rest_where_it_sends_to(method):
    world = steered(random_world(0), method)
    leaf = world.now["forget"].states[HOOK].requires_grad_()
    value = method.forget(world.step())
    value.backward()
    assert value.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.abs().max() == 0


def test_retains_nothing_at_the_start():
    found = LONG.loss(at_start(random_world(1)).step())
    assert found["retain"].item() == found["text"].item() == 0


def test_gradient_pulls_straight_to_the_vector():
    world, method = random_world(2, plain=True), LONG
    rows, leaf = world.rows("forget"), world.now["forget"].states[HOOK].requires_grad_()
    found = torch.autograd.grad(method.forget(world.step()), leaf)[0]
    assert method.steering is not None
    goal = method.steering * method.directions(rows.fold, WIDTH, 0)
    expected = 2 * (leaf.detach() - goal[:, None, :]) / WIDTH / int(rows.valid.sum())
    torch.testing.assert_close(found, expected * rows.valid[:, :, None])


def test_a_row_does_not_depend_on_its_neighbours():
    """Rows of different lengths: the published all-rows-by-all-lengths division would show."""
    world = random_world(3, plain=True)
    counts = world.rows("forget").valid.sum(dim=1).tolist()
    assert len(set(counts)) > 1
    alone = [LONG.forget(world.step([row])).item() for row in range(ROWS)]
    together = sum(value * count for value, count in zip(alone, counts, strict=True)) / sum(counts)
    assert LONG.forget(world.step()).item() == pytest.approx(together, rel=1e-12)


@kinds
def test_vectors_have_length_one_and_follow_the_seed(method):
    found = method.directions(folds(3), 50, 7)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(found, method.directions(folds(3), 50, 7))
    assert not torch.equal(found, method.directions(folds(3), 50, 8))


def test_a_shared_vector_is_shared_and_published_ones_are_positive():
    found = RMU().directions(folds(3), 50, 0)
    assert torch.equal(found, found[:1].expand_as(found))
    assert found.min() >= 0


@pytest.mark.parametrize("vectors", ["per_fold", "orthogonal"])
def test_a_fold_keeps_its_vector_when_others_come(vectors):
    method = RMU(vectors=vectors)
    assert torch.equal(method.directions(folds(2), 50, 0), method.directions(folds(6), 50, 0)[:3])
    mixed = torch.tensor([2, -1, 0, 2])
    assert torch.equal(method.directions(mixed, 50, 0), method.directions(folds(6), 50, 0)[mixed + 1])


@pytest.mark.parametrize(("entries", "cosine"), [("uniform", 0.75), ("normal", 0.0)])
def test_expected_cosine_of_two_folds(entries, cosine):
    found = RMU(vectors="per_fold", entries=entries).directions(folds(8), 4096, 0)
    apart = (found @ found.T)[~torch.eye(9, dtype=torch.bool)]
    assert apart.mean().item() == pytest.approx(cosine, abs=0.02)


@pytest.mark.parametrize("entries", ["uniform", "normal"])
def test_orthogonal_vectors_are_orthogonal_up_to_the_width(entries):
    found = RMU(vectors="orthogonal", entries=entries).directions(folds(WIDTH - 1), WIDTH, 0)
    torch.testing.assert_close(found @ found.T, torch.eye(WIDTH, dtype=torch.float64), atol=1e-12, rtol=0)


def test_more_orthogonal_vectors_than_dimensions_are_refused():
    with pytest.raises(UserError, match="7 orthogonal vectors do not fit into a residual stream of 6"):
        RMU(vectors="orthogonal").directions(folds(WIDTH), WIDTH, 0)


@pytest.mark.parametrize(("layer", "expected"), [(7 / 32, [0, 1]), (3, [1, 2, 3]), (0, [0]), (0.75, [1, 2, 3])])
def test_trains_value_vectors_of_the_three_blocks_below(layer, expected):
    model = load(tiny("llama"))
    found = [slot for name in RMU(layer=layer).trained(model) for slot in resolve(name, model).slots]
    assert [slot.name for slot in found] == [f"model.layers.{block}.mlp.down_proj.weight" for block in expected]


def test_other_layers_are_read_where_they_are():
    world = random_world(4)
    method = RMU(layer=3, retain_weight=1.0, steering=6.5)
    for outputs in world.now.values():
        for name, state in outputs.states.items():
            if name != "blocks.3.hook_resid_post":
                state.fill_(math.nan)
    assert all(value.isfinite() for value in method.loss(world.step()).values())


@pytest.mark.parametrize("wrong", [{"vectors": "two"}, {"entries": "zero"}, {"retain": "nothing"}])
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(UserError, match=f"rmu: {next(iter(wrong))}='{next(iter(wrong.values()))}' is not one of"):
        RMU(**wrong)


def test_a_plain_run_keeps_the_folds_of_the_facts(knowing, facts, monkeypatch):
    """A run that took all for one fold would be that of the shared vector."""
    forget = Facts(replace(fact, fold=place % 2 + 3) for place, fact in enumerate(facts.forget))
    seen, directions = set(), RMU.directions
    monkeypatch.setattr(
        RMU, "directions", lambda self, fold, *rest: seen.update(fold.tolist()) or directions(self, fold, *rest)
    )
    unlearn(knowing, RMU(vectors="per_fold"), forget, facts.retain, steps=2, batch_size=8, progress=False)
    assert seen == {3, 4}
