"""A quick run, and what to compare its model by."""

import torch

from mechunlearn.models import hf, slots
from mechunlearn.unlearning import NPO, unlearn
from mechunlearn.unlearning.method import Method

QUICK = {"steps": 4, "learning_rate": 2e-3, "batch_size": 8, "evaluate_every": 2, "progress": False}


def run(model, facts, method: Method | None = None, **options):
    return unlearn(model, method or NPO(), facts.forget, facts.retain, **QUICK | options)


def close(one, other, **tolerance) -> None:
    for a, b in zip(hf(one).parameters(), hf(other).parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def moved(before, after) -> set[str]:
    pairs = zip(slots(before), slots(after), strict=True)
    return {old.name for old, new in pairs if not torch.equal(old.tensor, new.tensor)}
