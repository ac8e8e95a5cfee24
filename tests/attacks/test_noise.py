"""Noise on the weights."""

import pytest
import torch

from mechunlearn.attacks.kinds.noise import Noise
from mechunlearn.errors import UserError
from mechunlearn.models import fingerprint, slots

from .toys import given, logits, toy


def test_no_noise_changes_nothing():
    for attempt in Noise(scales=(0.0,), draws=2).attempts(toy(), given()):
        assert torch.equal(logits(attempt.model), logits(toy()))


@pytest.mark.parametrize("scale", [0.03, 0.5])
def test_noise_is_in_units_of_each_matrix(scale):
    model = toy()
    (attempt,) = Noise(scales=(scale,), draws=1).attempts(model, given())
    ratios = []
    for old, new in zip(slots(model), slots(attempt.model), strict=True):
        noise = (new.tensor - old.tensor).detach()
        if old.layer < 0 or old.tensor.dim() < 2:
            assert not noise.any(), old.path
        else:
            ratios.append(float(noise.std() / old.tensor.detach().std()) / scale)
            assert abs(float(noise.mean())) < 0.2 * scale * float(old.tensor.detach().std())
    assert ratios == pytest.approx([1] * len(ratios), abs=0.1)


def states(seed: int) -> list[tuple[str, str, str | None]]:
    attempts = Noise(scales=(0.1, 0.2), draws=2).attempts(toy(), given(seed=seed))
    return [(attempt.setting, attempt.part, fingerprint(attempt.model)["weights"]) for attempt in attempts]


def test_draws_follow_from_the_seed():
    assert states(3) == states(3)
    marks = [mark for _, _, mark in [*states(3), *states(4)]]
    assert len(set(marks)) == 8
    assert [part for _, part, _ in states(3)] == ["draw 1", "draw 2"] * 2


def test_the_model_stays_as_it_was():
    model, mark = toy(), fingerprint(toy())
    attempts = Noise().attempts(model, given())
    next(attempts)
    attempts.close()  # type: ignore[attr-defined]
    assert len(list(Noise(draws=1).attempts(model, given()))) == 3
    assert fingerprint(model) == mark


@pytest.mark.parametrize("wrong", [{"scales": ()}, {"scales": (-0.1,)}, {"draws": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match="noise"):
        Noise(**wrong)
