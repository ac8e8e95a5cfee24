"""Rounding to a grid and back, against plain arithmetic."""

from itertools import pairwise
from math import isnan
from statistics import NormalDist

import pytest
import torch
from hypothesis import given as drawn, strategies as st

from mechunlearn.attacks.kinds.grids import NF4, SCHEMES, bin_width, codes
from mechunlearn.attacks.kinds.quantise import Quantise, below_bin, quantise
from mechunlearn.errors import UserError
from mechunlearn.models import clone, fingerprint, slots

from .toys import given, make_facts, toy

LIMITS = {"int8": 127, "int4": 7}


@st.composite
def matrices(draw):
    """Any shape, any magnitude, with outliers, zeros and rows of nothing but zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 150)))
    weights = torch.randn(shape, generator=generator) * 10.0 ** draw(st.integers(-6, 4))
    if draw(st.booleans()):
        weights *= torch.randn(shape, generator=generator).exp() ** 3
    if draw(st.booleans()):
        weights *= torch.rand(shape, generator=generator) < 0.5
        weights[0] = 0
    return weights


@pytest.mark.parametrize("scheme", SCHEMES)
@drawn(matrices())
def test_rounding_errs_by_half_a_bin_at_most(scheme, weights):
    error = (quantise(weights, scheme) - weights).abs().double()
    width = bin_width(weights, scheme).double()
    assert (error <= width / 2 + 1e-6 * weights.abs()).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@drawn(matrices())
def test_what_is_rounded_stays(scheme, weights):
    once = quantise(weights, scheme)
    assert torch.equal(quantise(once, scheme), once)
    assert torch.equal(codes(once, scheme), codes(weights, scheme))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_symmetric_grids_are_those_of_plain_arithmetic(scheme):
    weights = torch.randn(3, 150, generator=torch.Generator().manual_seed(0))
    size, limit = (150 if scheme == "int8" else 64), LIMITS[scheme]
    for row, numbers in enumerate(weights.double().tolist()):
        for first in range(0, 150, size):
            block = numbers[first : first + size]
            step = max(map(abs, block)) / limit
            expected = [round(number / step) * step for number in block]
            here = slice(first, first + size)
            assert quantise(weights, scheme)[row, here].tolist() == pytest.approx(expected, rel=1e-5)
            assert bin_width(weights, scheme)[row, here].tolist() == pytest.approx([step] * len(block), rel=1e-5)


def test_every_weight_goes_to_the_nearest_nf4_level():
    weights = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    for row, numbers in enumerate(weights.double().tolist()):
        for first in (0, 64):
            block = numbers[first : first + 64]
            largest = max(map(abs, block))
            levels = [level * largest for level in NF4]
            expected = [min(levels, key=lambda level, number=number: abs(level - number)) for number in block]
            assert quantise(weights, "nf4")[row, first : first + 64].tolist() == pytest.approx(expected, rel=1e-5)


def test_nf4_levels_are_fixed_points():
    levels = torch.tensor(NF4)[None]
    for scale in (1.0, 0.037, 250.0):
        assert torch.allclose(quantise(scale * levels, "nf4"), scale * levels, rtol=1e-6, atol=0)


def test_nf4_levels_are_quantiles_of_the_normal_distribution():
    """arXiv 2305.14314, section 3: eight quantiles below zero and nine from there on, scaled to ±1, zero in both."""
    edge = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))  # the outermost probability of the published implementation
    upper = [NormalDist().inv_cdf(0.5 + (edge - 0.5) * k / 8) for k in range(9)]
    lower = [-NormalDist().inv_cdf(0.5 + (edge - 0.5) * k / 7) for k in range(7, 0, -1)]
    expected = [value / upper[-1] for value in lower + upper]
    assert list(NF4) == pytest.approx(expected, abs=1e-4)
    assert all(a < b for a, b in pairwise(NF4))


def test_low_precision_is_kept():
    weights = torch.randn(4, 70).bfloat16()
    assert quantise(weights, "int4").dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_matrices_inside_the_blocks_are_rounded_along_their_inputs(name, scheme):
    model = toy(name)
    mark = fingerprint(model)
    (attempt,) = Quantise(scheme=scheme).attempts(model, given())
    touched = 0
    for old, new in zip(slots(model), slots(attempt.model), strict=True):
        if old.layer < 0 or old.tensor.dim() < 2:
            assert torch.equal(old.tensor, new.tensor), old.path
            continue
        weights = old.tensor.detach()
        outputs_first = weights.T if old.features == 0 else weights
        expected = quantise(outputs_first.contiguous(), scheme)
        assert torch.equal(new.tensor, expected.T if old.features == 0 else expected), old.path
        touched += 1
    assert touched >= 4 * model.cfg.n_layers
    assert fingerprint(model) == mark
    assert attempt.facts.hash == make_facts().questions().hash


def test_shares_of_small_updates():
    before = toy()
    after = clone(before)
    small, large, half = (f"blocks.{layer}.mlp.out.weight" for layer in range(3))
    found = {slot.path: slot.tensor for slot in slots(after)}
    with torch.no_grad():
        for path, share in ((small, 0.4), (large, 5.0)):
            found[path].add_(share * bin_width(found[path], "int8"))
        found[half][:16].add_(0.4 * bin_width(found[half], "int8")[:16])
        found["embed.weight"].add_(1.0)  # outside the blocks: does not count
    table = below_bin(before, after, "int8")
    rows = {row["path"]: row for row in table.to_dict(orient="records")}
    assert rows[small]["below_half_bin"] == 1 and rows[large]["below_half_bin"] == 0
    assert rows[half]["moved"] == pytest.approx(0.5) and rows[half]["below_half_bin"] == 1
    assert rows[small]["same_level"] > 0.4 and rows[large]["same_level"] < 0.1
    untouched = rows["blocks.3.mlp.out.weight"]
    assert untouched["moved"] == 0 and isnan(untouched["below_half_bin"]) and isnan(untouched["same_level"])
    overall = rows[""]
    elements = sum(row["elements"] for path, row in rows.items() if path)
    assert overall["name"] == "all" and overall["elements"] == elements
    assert overall["moved"] == pytest.approx(2.5 * rows[small]["elements"] / elements)
    assert overall["below_half_bin"] == pytest.approx(1.5 / 2.5)


def test_an_unknown_scheme_is_named():
    with pytest.raises(UserError, match=r"int3.*int8, int4, nf4"):
        Quantise(scheme="int3")
