"""Windows: the paper's, and all the others."""

import pytest
from hypothesis import given as given_, strategies as st

from mechunlearn.dissection.windows import all_layers, families, from_, given, parse, single, sliding, up_to
from mechunlearn.errors import UserError


def test_the_papers_windows():
    """32 layers, centres 0 … 31: five layers, four at the second, three at the ends (2410.06606, its code)."""
    windows = sliding(5)(32)
    assert len(windows) == 32
    assert windows[:3] == [(0, 2), (0, 3), (0, 4)]
    assert windows[16] == (14, 18)
    assert windows[-2:] == [(28, 31), (29, 31)]


@given_(st.integers(1, 9), st.integers(1, 40))
def test_sliding_windows_hold_their_centre_and_stay_inside(width, layers):
    windows = sliding(width)(layers)
    assert len(windows) == layers
    for centre, (first, last) in enumerate(windows):
        assert 0 <= first <= centre <= last < layers
        assert last - first + 1 <= width
        clipped = first == 0 or last == layers - 1
        assert clipped or last - first + 1 == width


def test_other_families():
    assert single()(3) == [(0, 0), (1, 1), (2, 2)]
    assert up_to()(3) == [(0, 0), (0, 1), (0, 2)]
    assert from_()(3) == [(0, 2), (1, 2), (2, 2)]
    assert all_layers()(3) == [(0, 2)]


def test_what_a_user_may_write():
    assert [f.name for f in families(None)] == ["sliding(5)", "all"]
    assert [f.name for f in families("sliding:3,single,all")] == ["sliding(3)", "single", "all"]
    assert families([(1, 2), "single", sliding(1)])[-1](4) == [(1, 2)]
    assert parse("0-4")(6) == [(0, 4)]
    assert parse("3")(6) == [(3, 3)]
    assert parse("sliding(7)").name == "sliding(7)"


@pytest.mark.parametrize("text", ["slide:5", "sliding:x", "single:3", "", "3-"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(UserError, match="write sliding:5"):
        parse(text)


@pytest.mark.parametrize("window", [(0, 4), (-1, 2), (2, 1)])
def test_windows_outside_the_model_are_refused(window):
    with pytest.raises(UserError, match=r"layers 0 to 3|first ≤ last, from 0 on"):
        given([window])(4)


def test_a_window_has_a_layer():
    with pytest.raises(UserError, match="width of a sliding window must be at least 1"):
        sliding(0)
