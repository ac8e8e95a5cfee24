"""The four distances against their definitions, written out in numpy in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mechunlearn.dissection.metrics import Pair, Reference, distances, of_answer, rounding


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def case(seed, facts, vocabulary, scale, patches=2):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, facts)
    rows = np.repeat(np.arange(facts), counts)
    donor = rng.normal(size=(len(rows), vocabulary)) * 4
    logits = donor + rng.normal(size=(patches, *donor.shape)) * scale
    targets = rng.integers(0, vocabulary, len(rows))
    compared, predicts = rng.random(len(rows)) < 0.7, rng.random(len(rows)) < 0.7
    for fact in range(facts):  # every fact has both kinds of positions
        first = np.flatnonzero(rows == fact)[0]
        compared[first] = predicts[first] = True
    as_tensor = torch.as_tensor
    reference = Reference(
        as_tensor(donor), as_tensor(targets), as_tensor(rows), as_tensor(compared), as_tensor(predicts), facts
    )
    return reference, as_tensor(logits)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 40), st.sampled_from([1e-4, 0.1, 1.0, 30.0]))
def test_distances_are_what_they_say(seed, facts, vocabulary, scale):
    reference, logits = case(seed, facts, vocabulary, scale)
    found = distances(reference, logits)
    z, rows = reference.logits.numpy(), reference.facts.numpy()
    for patch, patched in enumerate(logits.numpy()):
        for fact in range(facts):
            at = (rows == fact) & reference.compared.numpy()
            d = patched[at] - z[at]
            p, q = log_softmax(z[at]), log_softmax(patched[at])
            assert found["mse"][patch, fact] == pytest.approx((d**2).mean(), rel=1e-9)
            centred = d - d.mean(-1, keepdims=True)
            assert found["mse_centred"][patch, fact] == pytest.approx((centred**2).mean(), rel=1e-9)
            assert found["kl"][patch, fact] == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-5, abs=1e-13)
            on = (rows == fact) & reference.predicts.numpy()
            target = reference.targets.numpy()[on]
            there = np.arange(len(target))
            change = (log_softmax(patched[on]) - log_softmax(z[on]))[there, target].sum()
            assert found["answer_logprob"][patch, fact] == pytest.approx(abs(change), rel=1e-9, abs=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_a_shift_of_all_logits_is_seen_by_the_raw_distance_alone(seed):
    reference, _ = case(seed, 2, 7, 1.0)
    shifted = (reference.logits + 3.0)[None]
    found = distances(reference, shifted)
    assert torch.allclose(found["mse"], torch.full_like(found["mse"], 9.0))
    for metric in ("mse_centred", "kl", "answer_logprob"):
        assert float(found[metric].max()) < 1e-12


def test_equal_predictions_are_at_distance_zero():
    reference, _ = case(1, 3, 11, 1.0)
    for value in distances(reference, reference.logits[None]).values():
        assert float(value.abs().max()) <= 1e-14


def test_answer_logprob_is_summed_over_the_answer():
    reference, _ = case(2, 3, 11, 1.0)
    expected = torch.zeros(3, dtype=torch.float64)
    for row in range(len(reference.facts)):
        if reference.predicts[row]:
            expected[reference.facts[row]] += reference.logits[row].log_softmax(-1)[reference.targets[row]]
    found = of_answer(Pair(reference, reference.logits[None]))
    torch.testing.assert_close(found["logprob"][0], expected)


def test_the_rank_is_the_place_of_the_right_token():
    reference, patched = case(2, 3, 11, 1.0)
    ranks = of_answer(Pair(reference, patched))["rank"]
    for patch, logits in enumerate(patched):
        for fact in range(3):
            rows = [r for r in range(len(reference.facts)) if reference.facts[r] == fact and reference.predicts[r]]
            places = [1 + int((logits[r] > logits[r, reference.targets[r]]).sum()) for r in rows]
            assert float(ranks[patch, fact]) == pytest.approx(np.mean(places))
    flat = of_answer(Pair(reference, torch.zeros_like(patched)))["rank"]
    assert float(flat.min()) == float(flat.max()) == 6  # the middle of eleven equal ones


def test_rounding_grows_with_the_logits_and_shrinks_with_precision():
    reference, _ = case(3, 2, 11, 1.0)
    coarse, fine = rounding(reference, torch.bfloat16), rounding(reference, torch.float32)
    assert all(coarse[metric] > 1e3 * fine[metric] > 0 for metric in fine)
