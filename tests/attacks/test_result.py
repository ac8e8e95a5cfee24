"""Attacks kept and opened again, and what their files may have wrong with them."""

import json

import pandas as pd
import pytest

from mechunlearn.attacks import Attacks, curve, steps_to_recover, summarise_attacks
from mechunlearn.errors import UserError
from mechunlearn.runs import RunFolder, read_frame, write_frame

from ..folders import rewritten
from .test_summary import random_frame, strongest_frame


@pytest.fixture
def found() -> Attacks:
    frame = random_frame(2).assign(fold=pd.array([0] * len(random_frame(2)), dtype="Int64"))
    return Attacks(frame, {"settings": {"attacks": [{"attack": "relearn", "epochs": 2}], "left_out": {}, "seed": 3}})


def test_kept_and_opened_again(found, tmp_path):
    folder = found.save(tmp_path / "attacks")
    opened = Attacks.load(folder)
    pd.testing.assert_frame_equal(opened.frame, found.frame)
    assert opened.about == found.about
    pd.testing.assert_frame_equal(opened.summary(by="attack", resamples=50), found.summary(by="attack", resamples=50))
    found.save(folder)  # the same once more is no harm
    other = Attacks(found.frame, {"settings": {"seed": 4}})
    with pytest.raises(UserError, match="other settings"):
        other.save(folder)


def test_what_it_gives_are_the_tables(found):
    pd.testing.assert_frame_equal(
        found.summary("probability", resamples=50), summarise_attacks(found.frame, "probability", resamples=50)
    )
    pd.testing.assert_frame_equal(found.curve(), curve(found.frame))
    pd.testing.assert_frame_equal(found.steps_to_recover(0.6), steps_to_recover(found.frame, 0.6))


def test_in_words():
    found = Attacks(strongest_frame(), {"settings": {}})
    assert repr(found) == f"Attacks(4 facts; prompts, noise, steer; {len(found.frame)} rows)"
    page = found._repr_html_()
    assert all(name in page for name in ("4 facts", "prompts", "noise", "steer", "never_knew"))


def test_other_folders_are_refused(found, tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        Attacks.load(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "evaluation", "about": {"n": 1}}))
    with pytest.raises(UserError, match="holds a run of kind 'evaluation', not attacks"):
        Attacks.load(tmp_path)
    with pytest.raises(UserError, match="kind 'evaluation'"):
        found.save(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    RunFolder(tmp_path, "attacks", {"seed": 0})
    with pytest.raises(UserError, match="not finished; run the same call again to go on"):
        Attacks.load(tmp_path)


def test_broken_files(found, tmp_path):
    folder = found.save(tmp_path / "attacks")
    write_frame(folder / "frame.parquet", read_frame(folder / "frame.parquet").drop(columns=["part", "correct"]))
    with pytest.raises(UserError, match=r"frame\.parquet: was cut or changed since the run ended; the same call"):
        Attacks.load(folder)
    rewritten(folder, files=None)
    with pytest.raises(UserError, match="no column part, correct; was it changed, or written by another version"):
        Attacks.load(folder)
    (folder / "frame.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        Attacks.load(folder)
    (folder / "frame.parquet").unlink()
    with pytest.raises(UserError, match="no such file"):
        Attacks.load(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        Attacks.load(folder)
