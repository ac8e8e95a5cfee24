"""Weights between after and before."""

import pytest
import torch

from mechunlearn.attacks.kinds.interpolate import Interpolate
from mechunlearn.errors import UserError
from mechunlearn.models import fingerprint, slots

from .toys import given, logits, toy


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_the_ends_are_the_two_models(name):
    after, before = toy(name, 0), toy(name, 1)
    found = [logits(attempt.model) for attempt in Interpolate(shares=(0.0, 1.0)).attempts(after, given(before))]
    assert torch.allclose(found[0], logits(after), atol=1e-6)
    assert torch.allclose(found[1], logits(before), atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_between_them_every_parameter_is_the_weighted_mean():
    after, before = toy(seed=0), toy(seed=1)
    marks = fingerprint(after), fingerprint(before)
    seen = []
    for attempt in Interpolate().attempts(after, given(before)):
        share = (0.25, 0.5, 0.75)[len(seen)]
        for a, b, mixed in zip(slots(after), slots(before), slots(attempt.model), strict=True):
            expected = (1 - share) * a.tensor.double() + share * b.tensor.double()
            assert torch.allclose(mixed.tensor.double(), expected, atol=1e-6), a.path
        seen.append(attempt.setting)
    assert len(set(seen)) == 3
    assert (fingerprint(after), fingerprint(before)) == marks


def test_models_must_match_and_before_must_be_there():
    assert Interpolate().needs(given()) == "the model before unlearning"
    with pytest.raises(UserError, match="before unlearning"):
        next(Interpolate().attempts(toy(), given()))
    with pytest.raises(UserError, match="architecture"):
        next(Interpolate().attempts(toy(), given(toy("gpt2"))))


@pytest.mark.parametrize("shares", [(), (-0.1,), (0.5, 1.1)])
def test_wrong_shares(shares):
    with pytest.raises(UserError, match="shares"):
        Interpolate(shares=shares)
