"""Directions in the residual stream: how they are found, what taking them away or adding them does."""

import pytest
import torch
from torch import Tensor

import mechunlearn as mu
from mechunlearn.attacks.kinds.directions import AblateDirection, Steer
from mechunlearn.attacks.kinds.mean_shift import shifts
from mechunlearn.errors import UserError
from mechunlearn.facts import prompt_tokens
from mechunlearn.models import clone, fingerprint, hf, slots
from mechunlearn.models.hooks import hooked

from .toys import given, logits, make_facts, tokenizer, toy

PLACE = 1  # the block in which a direction is planted


def planted(size: float = 30.0):
    """before, after, u: `after` adds size·u to the residual stream in one block, at every position."""
    before = toy("gpt2")
    after = clone(before)
    unit = torch.randn(before.cfg.d_model, generator=torch.Generator().manual_seed(5))
    unit = unit - unit.mean()  # layer norm would take the mean away
    unit /= unit.norm()
    (bias,) = (slot.tensor for slot in slots(after) if slot.path == f"blocks.{PLACE}.mlp.out.bias")
    with torch.no_grad():
        bias.add_(size * unit)
    return before, after, unit


def divergence(p: Tensor, q: Tensor) -> float:
    a, b = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return float((a.exp() * (a - b)).sum(-1).mean())


def mean_states(model, facts) -> Tensor:
    """Mean of the hidden states of transformers at the last token of each prompt, one prompt at a time."""
    rows = []
    for fact in facts:
        ids = torch.tensor([prompt_tokens(fact.prompt, tokenizer(), facts.template)])
        with torch.no_grad():
            states = hf(model)(input_ids=ids, output_hidden_states=True).hidden_states
        rows.append(torch.stack([state[0, -1].double() for state in states[1:-1]]))  # the last one is normed
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("folds", [4, None])
def test_means_are_taken_over_the_other_facts_alone(folds):
    facts = make_facts(folds)
    after, before = toy(seed=0), toy(seed=1)
    found = list(shifts(after, before, facts))
    assert sorted(fact.id for _, part, _ in found for fact in part) == sorted(fact.id for fact in facts)
    for _, part, shift in found:
        ids = {fact.id for fact in part}
        others = facts.where(id=[fact.id for fact in facts if fact.id not in ids])
        assert not {fact.subject for fact in others} & {fact.subject for fact in part}
        expected = mean_states(after, others) - mean_states(before, others)
        assert torch.allclose(shift[:-1], expected, atol=1e-4)


@pytest.mark.parametrize("onwards", [True, False])
def test_what_is_left_is_orthogonal_to_the_direction(onwards):
    model = toy()
    vector = torch.randn(model.cfg.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen: dict[int, Tensor] = {}

    def keep(layer):
        def save(tensor, *, hook):
            seen[layer] = tensor.double()

        return save

    attack = AblateDirection(layers=(1,), onwards=onwards, vector=tuple(vector.tolist()))
    attempts = attack.attempts(model, given())
    attempt = next(attempts)
    with hooked(model, [(f"blocks.{layer}.hook_resid_pre", keep(layer)) for layer in range(1, 4)]):
        logits(attempt.model)
    along = {layer: float((state @ (vector / vector.norm())).abs().max()) for layer, state in seen.items()}
    assert along[1] > 0.1 and along[2] < 1e-5
    assert (along[3] < 1e-5) == onwards
    attempts.close()  # type: ignore[attr-defined]


def test_a_planted_direction_is_found_and_taken_away():
    before, after, unit = planted()
    was, hidden = logits(before), logits(after)
    expected = hidden
    for attempt in AblateDirection(layers=(PLACE,), vector=tuple(unit.tolist())).attempts(before, given()):
        expected = logits(attempt.model)  # `before`, which loses what it had along u itself
    for attempt in AblateDirection(layers=(PLACE,)).attempts(after, given(before)):
        found = logits(attempt.model)
        assert torch.allclose(found, expected, atol=1e-3)
        assert divergence(was, found) < 0.2 * divergence(was, hidden)
    assert not torch.allclose(hidden, expected, atol=0.1)


def test_steering_back_undoes_a_planted_direction():
    before, after, _ = planted()
    for attempt in Steer(layers=(PLACE,), strengths=(1.0,)).attempts(after, given(before)):
        found = logits(attempt.model)
        assert torch.allclose(found, logits(before), atol=1e-3)
    assert not torch.allclose(logits(after), logits(before), atol=0.1)


def test_nothing_is_done_where_nothing_was_changed():
    before, after, _ = planted()
    plain = logits(after)
    for attack in (AblateDirection(layers=(0,)), Steer(layers=(0,)), Steer(layers=(PLACE,), strengths=(0.0,))):
        for attempt in attack.attempts(after, given(before)):
            assert torch.equal(logits(attempt.model), plain)


@pytest.mark.parametrize("attack", [AblateDirection(), Steer()])
@pytest.mark.parametrize("early", [True, False])
def test_the_models_come_out_as_they_went_in(attack, early):
    after, before = toy(seed=0), toy(seed=1)
    state = [fingerprint(after), fingerprint(before)]
    plain = [logits(after), logits(before)]
    attempts = attack.attempts(after, given(before))
    changed = logits(next(attempts).model)
    assert not torch.allclose(changed, plain[0], atol=1e-3)
    if early:
        attempts.close()
    else:
        settings = [attempt.setting for attempt in attempts]
        assert len(settings) == 4 * 4 * len(getattr(attack, "strengths", (1,))) - 1
    assert [fingerprint(after), fingerprint(before)] == state
    assert torch.equal(logits(after), plain[0]) and torch.equal(logits(before), plain[1])


def test_every_fact_is_asked_once_a_setting():
    attempts = list(AblateDirection(layers=(2,)).attempts(toy(seed=0), given(toy(seed=1))))
    asked_for = [fact.id.rpartition("#h")[0] for attempt in attempts for fact in attempt.facts]
    assert sorted(asked_for) == sorted(2 * [fact.id for fact in make_facts()])
    assert [attempt.part for attempt in attempts] == [f"all but fold {fold}" for fold in range(4)]


def test_what_is_missing_or_does_not_fit():
    vector = (1.0,) * 32
    assert AblateDirection().needs(given()) == Steer().needs(given()) == "the model before unlearning"
    assert AblateDirection(vector=vector).needs(given()) is None
    for attack, words in (
        (AblateDirection(), "before unlearning"),
        (Steer(), "before unlearning"),
        (AblateDirection(vector=vector[1:]), "31 entries.*32"),
        (AblateDirection(vector=vector, layers=(4,)), "0 to 3"),
    ):
        with pytest.raises(UserError, match=words):
            next(attack.attempts(toy(), given()))
    with pytest.raises(UserError, match="zero"):
        AblateDirection(vector=(0.0,) * 32)
    one = make_facts(None).where(subject="anna")
    with pytest.raises(UserError, match="two subjects"):
        next(Steer().attempts(toy(), given(toy(seed=1), one)))


def test_a_given_vector_needs_no_model_before_and_is_no_help():
    vector = (1.0,) + (0.0,) * 31
    found = mu.attack(toy(), make_facts(), suite=[AblateDirection(vector=vector, layers=(1,))], progress=False)
    assert not found.frame["helped"].any()
    assert set(found.frame["setting"]) == {"", "layer 1, given vector"}
    assert AblateDirection().uses_before
