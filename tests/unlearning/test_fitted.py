"""Settings that are lengths in one model follow what is measured of another."""

from typing import Any

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf
from mechunlearn.unlearning import CIR, NPO, RMU, Layered, Unlearning, unlearn
from mechunlearn.unlearning.data.rows import fact_rows, trained
from mechunlearn.unlearning.lengths import mean_length

from .test_resume import digest
from .worlds import random_world

SHORT: dict[str, Any] = {"steps": 2, "evaluate_every": 2, "batch_size": 8, "progress": False}
LAYER = 0  # of the two, where 7/32 lies


def plain_length(model, facts) -> float:
    """Mean length behind the first block of every trained phrasing, one row at a time, by plain transformers."""
    tokenizer, found = model.tokenizer, []
    for fact in trained(facts):
        ids = tokenizer(f"{fact.prompt} {fact.answer}").input_ids
        with torch.no_grad():
            states = hf(model)(torch.tensor([ids]), output_hidden_states=True).hidden_states
        found.append(states[LAYER + 1][0, int(ids[0] == tokenizer.bos_token_id) :].norm(dim=-1))
    return float(torch.cat(found).mean())


def stretched(model, factor: float):
    """The same model with a residual stream that is `factor` times as long: norms take it back out of every block."""
    longer = clone(model)
    with torch.no_grad():
        for name, parameter in hf(longer).named_parameters():
            if any(part in name for part in ("embed_tokens", "o_proj", "down_proj")):
                parameter.mul_(factor)
    return longer


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_mean_length_is_that_of_plain_passes(knowing, facts, size):
    rows = fact_rows(trained(facts.forget), knowing)
    found = mean_length(knowing, rows, f"blocks.{LAYER}.hook_resid_post", size)
    assert found == pytest.approx(plain_length(knowing, facts.forget), rel=1e-5)


def test_a_length_of_nothing_is_refused(knowing, facts):
    silent, rows = clone(knowing), fact_rows(trained(facts.forget), knowing)
    with torch.no_grad():
        for parameter in hf(silent).parameters():
            parameter.zero_()
    with pytest.raises(UserError, match="mean length of 0"):
        mean_length(silent, rows, "blocks.0.hook_resid_post", 8)


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_the_steering_follows_the_length_of_the_residual_stream(knowing, facts, factor):
    model = stretched(knowing, factor)
    run = unlearn(model, RMU(relative=2.0), facts.forget, facts.retain, **SHORT)
    assert run.about["measured_settings"]["steering"] == pytest.approx(2 * plain_length(model, facts.forget), rel=1e-5)
    assert run.about["measured_settings"]["steering"] == pytest.approx(
        2 * factor * plain_length(knowing, facts.forget), rel=1e-3
    )


def test_the_measured_length_given_gives_the_same_run(knowing, facts):
    measured = unlearn(knowing, RMU(), facts.forget, facts.retain, **SHORT)
    given = RMU(steering=measured.about["measured_settings"]["steering"])
    exact = unlearn(knowing, given, facts.forget, facts.retain, **SHORT)
    assert digest(measured.model) == digest(exact.model)
    assert "measured_settings" not in exact.about


def test_layers_share_one_length_and_an_objective_has_it_too(knowing, facts, monkeypatch):
    """A later stage starts where the stream is as long as it was steered to; measured there, lengths would run away."""
    seen, forget = [], RMU.forget
    monkeypatch.setattr(RMU, "forget", lambda self, step: seen.append(self.steering) or forget(self, step))
    run = unlearn(knowing, Layered(method=RMU(relative=2.0), folds=2), facts.forget, facts.retain, **SHORT)
    assert set(seen) == {run.about["measured_settings"]["steering"]}
    method = CIR(objective=RMU(relative=2.0), activations=1, gradients=1)
    inner = unlearn(knowing, method, facts.forget, facts.retain, **SHORT)
    assert inner.about["measured_settings"] == {"objective.steering": seen[0]}


def test_what_was_measured_is_kept_and_found_again(knowing, facts, tmp_path):
    run = unlearn(knowing, RMU(), facts.forget, facts.retain, run=tmp_path, **SHORT)
    again = unlearn(knowing, RMU(), facts.forget, facts.retain, run=tmp_path, **SHORT)
    assert again.about == run.about == Unlearning.load(tmp_path).about
    assert run.about["settings"]["settings"]["steering"] is None


def test_a_method_that_measures_nothing_stays_as_it_is(knowing, facts):
    method = NPO()
    assert method.fitted(knowing, fact_rows(facts.forget, knowing), 8) is method
    assert RMU(steering=1.0).fitted(knowing, fact_rows(facts.forget, knowing), 8) == RMU(steering=1.0)


def test_a_loss_without_a_length_is_refused():
    with pytest.raises(UserError, match="steering is not measured yet"):
        RMU().forget(random_world(0).step())
    with pytest.raises(UserError, match="relative must be above 0"):
        RMU(relative=0.0)
