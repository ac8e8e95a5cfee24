import re

import pytest
from hypothesis import given, strategies as st

from mechunlearn.errors import UserError
from mechunlearn.models import load, slots
from mechunlearn.unlearning.depth import block, boundary, parameters_in, span

from ..architectures import LAYERS, NAMES, tiny


@pytest.mark.parametrize(("place", "expected"), [(0, 0), (7, 7), (32, 32), (7 / 32, 7), (0.0, 0), (1.0, 32)])
def test_numbers_count_blocks_and_shares_are_of_the_depth(place, expected):
    assert boundary(place, 32) == expected


@pytest.mark.parametrize(("n_layers", "expected"), [(32, 7), (16, 4), (8, 2), (4, 1), (2, 0), (1, 0)])
def test_a_share_names_a_block_in_every_depth(n_layers, expected):
    assert block(7 / 32, n_layers) == expected


@pytest.mark.parametrize(
    ("n_layers", "expected"), [(32, range(6, 12)), (8, range(2, 3)), (4, range(1, 2)), (2, range(1)), (1, range(1))]
)
def test_a_span_of_shares_holds_a_block_in_every_depth(n_layers, expected):
    assert span((6 / 32, 12 / 32), n_layers) == expected


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_places_lie_inside_and_in_order(n_layers, one, other):
    first, last = sorted((one, other))
    assert 0 <= block(first, n_layers) <= block(last, n_layers) < n_layers
    if first < last:
        found = span((first, last), n_layers)
        assert 0 <= found.start < found.stop <= n_layers


def test_the_end_of_a_share_is_the_last_block():
    assert block(1.0, 12) == 11


@pytest.mark.parametrize("place", [-1, 13, 1.2, -0.1])
def test_a_place_outside_is_refused(place):
    with pytest.raises(UserError, match="lies outside a model of 12"):
        boundary(place, 12)


def test_a_block_behind_the_last_is_refused():
    with pytest.raises(UserError, match="there is no block 12: the model has blocks 0 to 11"):
        block(12, 12)


@pytest.mark.parametrize("places", [(3, 3), (5, 2), (0.5, 0.5), (0.75, 0.25)])
def test_an_empty_span_is_refused(places):
    with pytest.raises(UserError, match="there are no blocks"):
        span(places, 12)


@pytest.mark.parametrize("name", NAMES)
def test_finds_exactly_the_parameters_of_a_role_in_some_blocks(name):
    model = load(tiny(name))
    patterns = parameters_in(model, [0, LAYERS - 1], ["value_vectors"])
    for slot in slots(model):
        wanted = slot.layer in (0, LAYERS - 1) and "value_vectors" in slot.roles
        assert any(re.search(pattern, slot.name) for pattern in patterns) == wanted


def test_says_what_an_architecture_lacks():
    with pytest.raises(UserError, match=r"LlamaForCausalLM has no nonsense in blocks \[0\]"):
        parameters_in(load(tiny("llama")), [0], ["nonsense"])
