"""Frames that are given or read back hold what they must; else it is said what is wrong, before a computation."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from mechunlearn.attacks.summary import curve, recovered, steps_to_recover, summarise_attacks
from mechunlearn.dissection.plotting.maps import plot_positions
from mechunlearn.dissection.summary import summarise_recovery
from mechunlearn.errors import UserError
from mechunlearn.evaluation import paired, summarise_measures
from mechunlearn.frames import check_frame
from mechunlearn.runs.files import digest, read_frame
from mechunlearn.unlearning import Unlearning

from .reporting import synthetic

ROWS = pd.DataFrame({"name": ["a", "b"], "count": [1, 2], "share": [0.5, np.nan], "right": [True, False]})
KINDS = {"name": str, "count": int, "share": float | None, "right": bool}


def test_a_frame_of_the_right_kinds_passes():
    assert check_frame("it", ROWS, KINDS) is ROWS
    check_frame("it", ROWS.astype({"name": "category", "count": float}), KINDS)
    check_frame("it", ROWS[:0], KINDS)
    check_frame("it", ROWS.assign(share=[True, None]), KINDS)  # yes and no count as 1 and 0
    check_frame("it", ROWS, {"right": float, "name": str | None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": [1.5, 2]}, "name must hold a text"),
        ({"name": [["a"], ["b"]]}, "name must hold a text"),
        ({"name": ["a", None]}, "name has rows without a value"),
        ({"count": [1.5, 2]}, "count must hold a whole number"),
        ({"count": ["1", "2"]}, "count must hold a whole number"),
        ({"count": [True, False]}, "count must hold a whole number"),
        ({"share": [np.inf, 1]}, "share must hold a number or None"),
        ({"share": pd.Timestamp("2025-01-01")}, "share must hold a number or None"),
        ({"right": [0, 1]}, "right must hold True or False"),
        ({"right": ["yes", True]}, "right must hold True or False"),
    ],
)
def test_another_kind_is_named(change, said):
    with pytest.raises(UserError, match=f"^its frame: column {said}"):
        check_frame("its frame", ROWS.assign(**change), KINDS)


def test_missing_and_repeated_columns_are_named():
    with pytest.raises(UserError, match="no column count, share"):
        check_frame("it", ROWS[["name", "right"]], KINDS)
    with pytest.raises(UserError, match="the column name twice"):
        check_frame("it", pd.concat([ROWS, ROWS[["name"]]], axis=1), KINDS)


def test_nobody_waits_at_a_pipe_in_place_of_a_frame(tmp_path):
    os.mkfifo(tmp_path / "frame.parquet")
    with pytest.raises(UserError, match="no regular file"):
        read_frame(tmp_path / "frame.parquet")
    with pytest.raises(OSError, match="no regular file"):
        digest(tmp_path / "frame.parquet")


def test_one_field_is_not_read_letter_by_letter():
    with pytest.raises(UserError, match="by must be a list of fields"):
        summarise_measures(None, by="fold")


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(st.sampled_from(["fact", "question", "role", "attack", "model", "step", "correct", "site", "x"]),
                       st.lists(ODD, min_size=2, max_size=2), max_size=9))  # fmt: skip
def test_no_frame_ends_in_an_error_that_is_not_ours(columns):
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    for verb in (summarise_recovery, summarise_measures, summarise_attacks, recovered, curve, steps_to_recover):
        with pytest.raises(UserError):
            verb(frame)
    with pytest.raises(UserError):
        paired(frame, frame)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "weights"}, "the kind"),
        ({"direction": "sideways"}, "the direction"),
        ({"first_layer": -5}, "the window of layers"),
        ({"last_layer": 10**9}, "the window of layers"),
        ({"first_layer": 1, "last_layer": 0}, "the window of layers"),
        ({"baseline": -1.0}, "the baseline"),
        ({"position": -2}, "the position"),
    ],
)
def test_what_no_dissection_measures_is_refused_with_its_row(change, said):
    frame = synthetic.frame(4, 2, undefined=0)
    row = frame.index == 7
    for name, value in change.items():
        frame[name] = frame[name].astype(object).where(~row, value)
    with pytest.raises(UserError, match=rf"{said}.* \(site .*{list(change)[-1]} {list(change.values())[-1]}"):
        summarise_recovery(frame)


def test_a_map_without_tokens_is_refused():
    frame = synthetic.frame(4, 2, positions=True)
    plot_positions(frame)
    with pytest.raises(UserError, match="no column token"):
        plot_positions(frame.drop(columns="token"))


def by_csv(frame, path):
    frame.to_csv(path, index=False)
    return pd.read_csv(path)


def by_json(frame, path):
    frame.to_json(path, orient="records")
    return pd.read_json(path)


def by_arrow(frame, path):
    frame.to_parquet(path)
    return pd.read_parquet(path, dtype_backend="pyarrow")


def by_categories(frame, path):
    return frame.astype({name: "category" for name in frame if frame[name].dtype == object})


def by_an_index(frame, path):
    return frame.set_index(["fact", "question"], drop=False)


@pytest.mark.parametrize("kept", [by_csv, by_json, by_arrow, by_categories, by_an_index])
@pytest.mark.parametrize(
    ("verb", "frame"),
    [
        (summarise_recovery, synthetic.frame(6, 2)),
        (summarise_attacks, synthetic.attack_frame({("relearn", "lr 1e-3"): (0.5, 0.1), ("prompts", ""): (0.4, 0.1)})),
        (steps_to_recover, synthetic.attack_frame({("relearn", ""): (0.9, 0.1)})),
        (summarise_measures, pd.DataFrame({"question": list("0123"), "fact": list("0123"), "role": "forget",
                                           "subject": list("0011"), "recall": [1.0, 0.0, 1.0, 1.0]})),
    ],
)  # fmt: skip
def test_a_right_frame_is_right_whatever_kept_it(verb, frame, kept, tmp_path):
    """What a user keeps by another program, or gives an index, gives the same numbers."""
    want, found = verb(frame), verb(kept(frame, tmp_path / "frame"))
    pd.testing.assert_frame_equal(found, want, check_dtype=False, check_categorical=False)


def test_two_models_are_paired_by_ids_that_became_numbers(tmp_path):
    first = pd.DataFrame({"question": list("0123"), "fact": list("0123"), "role": "forget", "recall": [1.0, 0, 1, 1]})
    second = by_csv(first.assign(recall=0.0), tmp_path / "second.csv")
    pd.testing.assert_frame_equal(paired(first, second), paired(first, first.assign(recall=0.0)))


TOLD = {"settings": {"method": "npo", "prompts": "own"}, "stopped": "all steps were made", "step": 2}
COURSE = pd.DataFrame({"stage": 1, "step": [0, 1, 2], "inside": True, "scale": 1.0, "forget_recall": [1.0, 0.5, 0.0]})


@pytest.mark.parametrize(
    ("about", "frame", "said"),
    [
        ({"settings": {}}, COURSE, "settings lack the method"),
        ({"settings": {"method": "npo", "prompts": ["own"]}}, COURSE, "settings lack the method"),
        ({"step": 5}, COURSE, "step (5) do not say how"),
        ({"step": [2]}, COURSE, "step ([2]) do not say how"),
        ({"stopped": None}, COURSE, "stopped and step (2)"),
        ({"stages": "two"}, COURSE, "stages must be a whole number, not 'two'"),
        ({}, COURSE[:0], "step (2) do not say how"),
        ({}, COURSE.drop(columns="inside"), "no column inside"),
        ({}, COURSE.assign(step="late"), "column step must hold a whole number"),
    ],
)
def test_a_run_of_unlearning_that_was_changed_is_refused_before_its_model_is_opened(tmp_path, about, frame, said):
    kept = {"kind": "unlearning", "settings": {}, "versions": {}, "about": TOLD | about}
    (tmp_path / "run.json").write_text(json.dumps(kept))
    frame.to_parquet(tmp_path / "frame.parquet")
    with pytest.raises(UserError) as raised:
        Unlearning.load(tmp_path)
    assert said in str(raised.value)
