"""A small part of the recorded runs still gives the numbers that it gave when they were recorded.

`python -m tests.recorded.runs` compares all of them bit for bit, on one machine. Another processor rounds otherwise, so
here floats may differ in the last digits; what is counted, chosen or said may not.
"""

from pathlib import Path

import pandas as pd
import pytest

from . import runs

KEPT = Path(__file__).parents[1] / "data" / "recorded"
NAMES = sorted({path.name.split(".")[0] for path in KEPT.glob("*.parquet")})


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_that_were_recorded(name):
    assert len(NAMES) == 6
    found = runs.RUNS[name]()
    for path in KEPT.glob(f"{name}.*.parquet"):
        then = pd.read_parquet(path)
        now = found[path.name.split(".")[1]]
        assert set(then) <= set(now)
        for column in then:
            old, new = then[column], now[column].reset_index(drop=True)
            if pd.api.types.is_float_dtype(old):
                pd.testing.assert_series_equal(new.astype(float), old, rtol=1e-3, atol=1e-5, check_names=False)
            else:
                assert list(new.astype(str)) == list(old.astype(str)), column


def test_a_changed_number_is_seen():
    frame = pd.DataFrame({"fact": ["a", "b"], "recovery": [0.5, None], "kept": [True, False]})
    assert not list(runs.differences(frame.assign(more=1), frame))
    assert list(runs.differences(frame.assign(recovery=[0.5 + 1e-15, None]), frame)) == [
        "recovery: 1 of 2 rows differ, at most 9.99e-16"
    ]
    assert list(runs.differences(frame.assign(recovery=[0.5, 0.0]), frame))
    assert list(runs.differences(frame.drop(columns="kept"), frame)) == ["column kept is gone"]
    assert list(runs.differences(frame[:1], frame)) == ["2 rows became 1"]
