"""Run folders: whole files or none, and no run of other settings."""

import json
import os

import pandas as pd
import pytest

from mechunlearn import runs
from mechunlearn.errors import UserError
from mechunlearn.runs import RunFolder, read_frame, read_run, write_atomically

FRAME = pd.DataFrame({"x": [1.5, 2.0], "name": ["a", "ü"]})


def test_units_are_kept_and_the_run_goes_on(tmp_path):
    first = RunFolder(tmp_path / "run", "kind", {"a": 1, "b": [1, 2]})
    assert first.unit("0") is None
    first.finish_unit("0", FRAME)
    again = RunFolder(tmp_path / "run", "kind", {"b": [1, 2], "a": 1})
    kept = again.unit("0")
    assert kept is not None
    pd.testing.assert_frame_equal(kept, FRAME)
    assert not again.finished
    again.finish({"found": 3}, frame=FRAME)
    assert again.finished
    assert read_run(tmp_path / "run")["about"] == {"found": 3}


def test_other_settings_and_other_kinds_are_refused(tmp_path):
    RunFolder(tmp_path / "run", "kind", {"seed": 1})
    with pytest.raises(UserError, match=r"other settings \(seed was 1, now 2\)"):
        RunFolder(tmp_path / "run", "kind", {"seed": 2})
    with pytest.raises(UserError, match="holds a run of kind 'kind', not 'other'"):
        RunFolder(tmp_path / "run", "other", {"seed": 1})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty, and not a run folder"):
        RunFolder(tmp_path, "kind", {})
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "notes.txt", "kind", {})


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "file", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_broken_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        read_run(tmp_path)


def test_broken_and_missing_frames_are_named(tmp_path):
    with pytest.raises(UserError, match=r"frame\.parquet: no such file"):
        read_frame(tmp_path / "frame.parquet")
    (tmp_path / "frame.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_frame(tmp_path / "frame.parquet")


@pytest.mark.parametrize("package", ["mechunlearn", "code", "torch", "transformers", "transformer-lens"])
def test_an_unfinished_run_of_other_versions_is_not_gone_on_with(tmp_path, package, monkeypatch):
    begun = RunFolder(tmp_path / "run", "kind", {"a": 1})
    begun.finish_unit("0", FRAME)
    now = runs.versions() | {package: "99"}
    monkeypatch.setattr(runs, "versions", lambda: now)
    said = rf"other versions began \({package} was .*, now 99\), whose pieces would be mixed.*give a new folder"
    with pytest.raises(UserError, match=said):
        RunFolder(tmp_path / "run", "kind", {"a": 1})
    monkeypatch.undo()
    RunFolder(tmp_path / "run", "kind", {"a": 1}).finish({"found": 3}, frame=FRAME)
    monkeypatch.setattr(runs, "versions", lambda: now)
    assert RunFolder(tmp_path / "run", "kind", {"a": 1}).finished  # a finished one is only read


def test_the_code_is_hashed_with_every_file_of_it():
    assert len(runs.versions()["code"]) == 12
    assert runs.versions()["code"] == runs._code.__wrapped__()


def test_a_piece_made_of_other_things_is_named(tmp_path):
    begun = RunFolder(tmp_path / "run", "kind", {"a": 1})
    begun.finish_unit("0", FRAME, ["f1", "f2"])
    pd.testing.assert_frame_equal(begun.unit("0", ["f1", "f2"]), FRAME)
    with pytest.raises(
        UserError, match=r"made of 2 parts, and now it would be of 2 \(first that differs: \('f2', 'f3'\)\)"
    ):
        begun.unit("0", ["f1", "f3"])
    with pytest.raises(UserError, match=r"of 3 \(first that differs: \(None, 'f3'\)\)"):
        begun.unit("0", ["f1", "f2", "f3"])


@pytest.mark.parametrize("package", ["code", "torch"])
def test_an_unfinished_run_that_does_not_say_its_versions_is_not_gone_on_with(tmp_path, package):
    """Of before a version was written down: nobody knows what made its pieces."""
    RunFolder(tmp_path / "run", "dissection", {})
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    del content["versions"][package]
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"other versions began \({package} was not written down, now "):
        RunFolder(tmp_path / "run", "dissection", {})


def test_a_piece_that_does_not_say_what_it_was_made_of_is_not_taken(tmp_path):
    folder = RunFolder(tmp_path / "run", "dissection", {})
    runs.write_frame(tmp_path / "run" / "units" / "00000.parquet", pd.DataFrame({"x": [1]}))
    with pytest.raises(UserError, match="made of 0 parts, and now it would be of 1"):
        folder.unit("00000", ["a"])
