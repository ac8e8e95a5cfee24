"""Run folders: whole files or none, and no run of other settings."""

import json
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mechunlearn.runs.folder as room
import mechunlearn.runs.makers as made_by
from mechunlearn import runs
from mechunlearn.errors import UserError
from mechunlearn.runs import RunFolder, begun, check_run, read_finished, read_frame, read_run, write_atomically
from mechunlearn.runs.files import UNFINISHED

from .folders import rewritten

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


def at_version(monkeypatch, package, value):
    """From now on, this package is of that version."""
    real = made_by.versions()
    monkeypatch.setattr(made_by, "versions", lambda: real | {package: value})
    monkeypatch.setattr(room, "versions", made_by.versions)


@pytest.mark.parametrize("package", ["mechunlearn", "code", "torch", "transformers", "transformer-lens"])
def test_an_unfinished_run_of_other_versions_is_not_gone_on_with(tmp_path, package, monkeypatch):
    begun = RunFolder(tmp_path / "run", "kind", {"a": 1})
    begun.finish_unit("0", FRAME)
    at_version(monkeypatch, package, "99")
    said = rf"other versions began \({package} was .*, now 99\), whose pieces would be mixed.*give a new folder"
    with pytest.raises(UserError, match=said):
        RunFolder(tmp_path / "run", "kind", {"a": 1})
    monkeypatch.undo()
    RunFolder(tmp_path / "run", "kind", {"a": 1}).finish({"found": 3}, frame=FRAME)
    at_version(monkeypatch, package, "99")
    assert RunFolder(tmp_path / "run", "kind", {"a": 1}).finished  # a finished one is only read


def test_the_code_is_hashed_with_every_file_of_it():
    assert len(runs.versions()["code"]) == 12
    assert runs.versions()["code"] == made_by._code.__wrapped__()


@pytest.mark.parametrize("package", ["code", "torch"])
def test_an_unfinished_run_that_does_not_say_its_versions_is_not_gone_on_with(tmp_path, package):
    """Of before a version was written down: nobody knows what made its pieces."""
    RunFolder(tmp_path / "run", "dissection", {})
    told = runs.versions()
    del told[package]
    rewritten(tmp_path / "run", versions=told)
    with pytest.raises(UserError, match=rf"other versions began \({package} was not written down, now "):
        RunFolder(tmp_path / "run", "dissection", {})


@pytest.mark.parametrize("field", ["kind", "settings", "versions", "about", "files"])
def test_a_run_that_was_changed_by_hand_is_named(tmp_path, field):
    RunFolder(tmp_path, "kind", {"seed": 1}).finish({"found": 3}, frame=FRAME)
    content = json.loads((tmp_path / "run.json").read_text())
    content[field] = "other" if field == "kind" else content[field] | {"seed": 2}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json: was changed since it was written"):
        read_run(tmp_path)


@pytest.mark.parametrize("field", ["settings", "versions", "about", "files"])
def test_fields_of_a_run_have_their_kinds(tmp_path, field):
    RunFolder(tmp_path, "kind", {"seed": 1})
    rewritten(tmp_path, **{field: [1]})
    with pytest.raises(UserError, match=rf"run\.json: field '{field}' must be a table"):
        read_run(tmp_path)


PIECE = "units/0.parquet"


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def changed(path):
    """Another number, written as our own are."""
    pq.write_table(pa.Table.from_pandas(FRAME.assign(x=[1.5, 3.0])), path)


def emptied(path):
    path.write_bytes(b"")


def unsaid(path):
    path.with_suffix(".json").unlink()


def misspoken(path):
    path.with_suffix(".json").write_text("[" * 100_000)


def elsewhere(path):
    other = RunFolder(path.parent.parent.parent / "other", "kind", {"a": 2})
    other.finish_unit("0", FRAME, ["f1", "f2"])
    for suffix in (".parquet", ".json"):
        path.with_suffix(suffix).write_bytes((other.path / PIECE).with_suffix(suffix).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "cut or changed since"),
        (changed, "cut or changed since"),
        (emptied, "cut or changed since"),
        (unsaid, "does not say what it was made of"),
        (misspoken, "does not say what it was made of"),
        (elsewhere, "belongs to a run of other settings"),
    ],
)
def test_a_piece_that_is_not_as_it_was_kept_is_computed_again_and_said(tmp_path, caplog, spoil, said):
    folder = RunFolder(tmp_path / "run", "kind", {"a": 1})
    folder.finish_unit("0", FRAME, ["f1", "f2"])
    whole = {file.name: file.read_bytes() for file in (folder.path / "units").iterdir()}
    spoil(folder.path / PIECE)
    assert folder.unit("0", ["f1", "f2"]) is None
    assert said in caplog.text and "it is computed again" in caplog.text
    pd.testing.assert_frame_equal(folder.kept("0", lambda: FRAME, ["f1", "f2"]), FRAME)
    assert {file.name: file.read_bytes() for file in (folder.path / "units").iterdir()} == whole


def test_a_piece_of_other_questions_or_versions_is_computed_again(tmp_path, caplog, monkeypatch):
    folder = RunFolder(tmp_path / "run", "kind", {"a": 1})
    folder.finish_unit("0", FRAME, ["f1", "f2"])
    kept = folder.unit("0", ["f1", "f2"])
    assert kept is not None and not caplog.text
    pd.testing.assert_frame_equal(kept, FRAME)
    assert folder.unit("0", ["f1", "f3"]) is None
    assert "2 parts where it would be 2; the first that differs was 'f2' and is 'f3'" in caplog.text
    assert folder.unit("0", ["f1", "f2", "f3"]) is None
    assert "was nothing and is 'f3'" in caplog.text
    at_version(monkeypatch, "torch", "99")
    assert folder.unit("0", ["f1", "f2"]) is None
    assert "other versions made it (torch was" in caplog.text


@pytest.mark.parametrize("spoil", [cut, changed, emptied, lambda path: path.unlink()])
def test_a_finished_frame_that_is_lost_or_spoilt_is_made_again(tmp_path, caplog, spoil):
    folder = RunFolder(tmp_path, "kind", {"a": 1})
    folder.finish({"found": 3}, frame=FRAME, more=FRAME)
    assert folder.finished
    spoil(tmp_path / "more.parquet")
    with pytest.raises(UserError, match=r"more\.parquet: (was cut or changed|is missing).*the same call"):
        read_finished(tmp_path, "kind", "a kind")
    assert not folder.finished
    assert "more.parquet" in caplog.text
    folder.finish({"found": 3}, frame=FRAME, more=FRAME)
    assert folder.finished and read_finished(tmp_path, "kind", "a kind")


def test_a_model_that_was_exchanged_is_refused_and_never_written_over(tmp_path):
    folder = RunFolder(tmp_path, "kind", {})
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(b"weights")
    folder.finish({"found": 3}, ("model",), frame=FRAME)
    assert folder.finished
    weights.write_bytes(b"others")
    with pytest.raises(UserError, match=r"model\.safetensors: was cut or changed since the run ended; delete .*model"):
        assert folder.finished
    weights.unlink()
    assert not folder.finished  # computed again


def test_one_process_at_a_time(tmp_path):
    with begun(tmp_path / "run", "kind", {}) as folder:
        assert folder is not None
        said = rf"run: in use by process {os.getpid()}, which began \d+ seconds ago"
        with pytest.raises(UserError, match=said), begun(tmp_path / "run", "kind", {}):
            pass
        folder.finish({"found": 3}, frame=FRAME)
        with begun(tmp_path / "run", "kind", {}) as read:  # what is finished is only read
            assert read is not None and read.finished
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"run.json", "frame.parquet"}


def test_a_lock_is_given_back_however_the_block_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), begun(tmp_path / "run", "kind", {}):
        raise KeyboardInterrupt
    with begun(tmp_path / "run", "kind", {}) as folder:
        assert folder is not None and not folder.finished


def test_the_lock_of_one_who_died_at_the_very_end_is_cleared(tmp_path):
    RunFolder(tmp_path, "kind", {}).finish({"found": 3}, frame=FRAME)
    (tmp_path / ".lock").write_text("4711")
    with begun(tmp_path, "kind", {}) as folder:
        assert folder is not None and folder.finished
    assert not (tmp_path / ".lock").exists()


def test_what_an_interruption_left_is_cleared_on_going_on(tmp_path):
    RunFolder(tmp_path, "kind", {})
    (tmp_path / "units").mkdir()
    for left in (tmp_path / f"{UNFINISHED}1", tmp_path / "units" / f"{UNFINISHED}2"):
        left.write_bytes(b"half")
    (tmp_path / f"{UNFINISHED}3").mkdir()
    (tmp_path / f"{UNFINISHED}3" / "model.safetensors").write_bytes(b"half")
    with begun(tmp_path, "kind", {}):
        pass
    assert not list(tmp_path.rglob(f"{UNFINISHED}*"))


def test_files_have_the_mode_that_the_user_wants(tmp_path):
    old = os.umask(0o077)
    try:
        write_atomically(tmp_path / "own", b"")
        os.umask(0o002)
        write_atomically(tmp_path / "shared", b"")
    finally:
        os.umask(old)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("own", "shared")] == ["0o600", "0o664"]


@pytest.mark.parametrize("path", ["run", "run/below"])
def test_a_folder_at_or_below_a_file_is_refused_before_anything(tmp_path, path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file, or lies below one"):
        check_run(tmp_path / path, "kind")


@pytest.mark.parametrize("path", ["x" * 5000, "a" * 300, "nul\0", 7, ["run"]])
def test_what_no_folder_can_be_called_is_one_short_line(path):
    with pytest.raises(UserError) as caught:
        check_run(path, "kind")
    assert len(str(caught.value)) < 400
