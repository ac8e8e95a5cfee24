"""Every method through `unlearn`, for a few steps."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from mechunlearn.models import hf, slots
from mechunlearn.sites import resolve
from mechunlearn.unlearning import (
    DPO,
    IDK,
    METHODS,
    RMU,
    Breaking,
    CircuitBreakers,
    GradientDifference,
    Layered,
    Method,
    RefusalDPO,
    unlearn,
)
from mechunlearn.unlearning.data.plan import sources_of

from .conftest import TEXT
from .formulas import LOSSES

every_loss = pytest.mark.parametrize("name", LOSSES)
SHORT: dict[str, Any] = {"steps": 3, "evaluate_every": 3, "batch_size": 8, "schedule": "constant", "progress": False}


def speakable(method: Method) -> Method:
    """With refusals that the tiny model has words for."""
    return replace(method, refusals=("the coat", "red house")) if isinstance(method, IDK | RefusalDPO) else method


@every_loss
def test_runs_and_moves_what_it_trains_and_nothing_else(knowing, facts, name):
    method = speakable(METHODS[name])
    after = unlearn(knowing, method, facts.forget, facts.retain, text=TEXT, retain_text=TEXT, **SHORT)
    last = after.frame.iloc[-1]
    parts = [column for column in map(str, after.frame.columns) if column.startswith("loss")]
    kept = {"loss_retain", "loss_text"} if method.retain_weight else set()
    assert set(parts) == {"loss", "loss_forget"} | kept
    assert last["step"] == 3
    assert all(math.isfinite(last[column]) for column in parts)
    assert last["inside"]

    before = {slot.name: slot.tensor for slot in slots(knowing)}
    moved = {slot.name for slot in slots(after.model) if not torch.equal(slot.tensor, before[slot.name])}
    if isinstance(method, CircuitBreakers):  # adapters on the linear maps up to the last target
        allowed = {slot.name for slot in slots(knowing) if slot.layer in (0, 1) and re.search("proj", slot.name)}
        assert moved == allowed
    else:
        allowed = {slot.name for site in method.trained(knowing) for slot in resolve(site, knowing).slots}
        assert moved <= allowed
        assert moved


@pytest.mark.parametrize(
    "method",
    # The breakers' own retain term ‖h − h⁰‖ points, at the start, wherever rounding does.
    [RMU(), Breaking(), GradientDifference(retain="kl"), CircuitBreakers(retain="cross_entropy")],
    ids=lambda method: method.name,
)
def test_checkpointing_and_accumulation_change_nothing(knowing, facts, method):
    def weights(**options):
        chosen: dict[str, Any] = SHORT | {"steps": 2, "optimizer": "sgd", "learning_rate": 0.1} | options
        after = unlearn(knowing, method, facts.forget, facts.retain, **chosen)
        return {path: parameter.detach() for path, parameter in hf(after.model).named_parameters()}

    expected = weights()
    for options in ({"checkpointing": True}, {"accumulation": 3}):
        torch.testing.assert_close(weights(**options), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["undial", "rmu", "circuit_breakers", "mlp_breaking"])
def test_computes_under_autocast(knowing, facts, name):
    after = unlearn(knowing, METHODS[name], facts.forget, facts.retain, precision="bf16", **SHORT)
    assert math.isfinite(after.frame.iloc[-1]["loss"])
    assert {parameter.dtype for parameter in hf(after.model).parameters()} == {torch.float32}


@pytest.mark.parametrize("method", [IDK(refusals=("the coat",)), DPO()], ids=lambda method: method.name)
def test_what_is_learned_instead_weighs_as_much_as_what_is_forgotten(knowing, facts, method):
    layered = Layered(method=method, folds=2, decay=0.1)
    last = list(layered.layers(facts.forget, facts.retain, seed=0))[-1]
    found = sources_of(knowing, method, last, None, 0, plain=False)
    assert found.alternative is not None
    assert torch.equal(found.alternative.weight, found.forget.weight)
    assert torch.equal(found.alternative.fold, found.forget.fold)
    assert found.forget.weight.unique().tolist() == pytest.approx([0.1, 1.0])


def test_refusals_are_learned(knowing, facts):
    method = speakable(METHODS["idk"])
    options: dict[str, Any] = SHORT | {"steps": 25, "evaluate_every": 25}
    after = unlearn(knowing, method, facts.forget, facts.retain, learning_rate=5e-3, **options)
    assert after.frame.iloc[0]["forget_recall"] == 1
    assert after.frame.iloc[-1]["forget_recall"] == 0
    assert after.frame.iloc[-1]["near_recall"] == 1
