"""Checkpoints on the disk."""

import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mechunlearn.errors import UserError
from mechunlearn.models import checkpoint, load, save

from ..architectures import tiny


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    """Of the two libraries that write: the one for tensors tells of it in a way of its own."""

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_torch_state_dict", full)
    with pytest.raises(UserError, match=r"model: could not be written: .*No space left on device"):
        save(load(tiny("llama")), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_is_saved_reaches_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, flush, rename = list[str](), os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda at: (done.append(Path(f"/proc/self/fd/{at}").readlink().name), flush(at))[1]
    )
    monkeypatch.setattr(Path, "replace", lambda path, to: (done.append("rename"), rename(path, to))[1])
    save(load(tiny("llama")), tmp_path / "model")
    before, after = done[: done.index("rename")], done[done.index("rename") :]
    assert {"config.json", "model.safetensors"} < set(before) and after[1:] == [tmp_path.name]
