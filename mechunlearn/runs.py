"""Run folders: what a long job leaves behind, whole or not at all, so that it can be interrupted at any moment.

    run.json        kind, settings, versions, and when it is done: what was found ("about")
    units/*.parquet the finished pieces of the job, each with what it was made of; never computed twice
    *.parquet       the finished frames

A file appears under its name only when it is complete: written beside it, flushed to disk, renamed.
"""  # fmt: skip

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError

MADE_OF = b"mechunlearn.made_of"  # in the metadata of a piece
MAKERS = ("mechunlearn", "code", "torch", "transformers", "transformer-lens")  # of the numbers
PACKAGES = ("mechunlearn", "torch", "transformers", "transformer-lens", "peft", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Versions of what made a result."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "code": _code()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def _code() -> str:
    """A short hash of the package's own source: between two releases it changes and the version does not."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.relative_to(Path(__file__).parent).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file so that it is there whole or not at all.

    Raises:
        UserError: it cannot be written (no space, no permission); nothing is left behind.
    """
    path = Path(path)
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    except OSError as error:
        raise UserError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        if unfinished is not None:
            Path(unfinished).unlink(missing_ok=True)
    return path


def write_frame(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write a frame as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return write_atomically(path, buffer.getvalue())


def read_frame(path: str | Path) -> pd.DataFrame:
    """Read a frame.

    Raises:
        UserError: no such file, or not a Parquet file.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the run is not finished, or this is not a run folder") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from error


class RunFolder:
    """One job's folder, made or gone on with; with `begin=False` only asked whether it could be.

    An unfinished run is gone on with by the versions that began it: pieces that two versions made would stand side by
    side as if one had made them all. A finished one is only read, whatever made it.

    Raises:
        UserError: the folder holds something else, a run of other settings, or an unfinished one of other versions.
    """

    def __init__(self, path: str | Path, kind: str, settings: Mapping[str, Any], *, begin: bool = True) -> None:
        self.path = Path(path)
        self.kind = kind
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        if self.path.is_file():
            raise UserError(f"{self.path}: is a file; give a folder for the run")
        if (self.path / "run.json").exists():
            self._check(read_run(self.path))
            return
        if self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise UserError(f"{self.path}: not empty, and not a run folder (no run.json); give a new folder")
        if begin:
            self._write({})

    def _check(self, found: dict[str, Any]) -> None:
        if found.get("kind") != self.kind:
            raise UserError(f"{self.path}: holds a run of kind {found['kind']!r}, not {self.kind!r}; give a new folder")
        for key, was, now in _other(found.get("settings", {}), self.settings):
            raise UserError(
                f"{self.path}: holds a run of other settings ({key} was {_short(was)}, now {_short(now)}); "
                "give a new folder, or the same settings to go on"
            )
        began, here = found.get("versions", {}), versions()
        other = [
            f"{name} was {began.get(name, 'not written down')}, now {here[name]}"
            for name in MAKERS
            if began.get(name) != here[name]
        ]
        if other and not found.get("about"):
            raise UserError(
                f"{self.path}: holds an unfinished run that other versions began ({'; '.join(other)}), whose pieces "
                "would be mixed with new ones; go on with those versions, or give a new folder"
            )

    def _write(self, about: Mapping[str, Any]) -> None:
        content = {"kind": self.kind, "settings": self.settings, "versions": versions(), "about": about}
        write_json(self.path / "run.json", content)

    def unit(self, name: str, of: Sequence[str] = ()) -> pd.DataFrame | None:
        """A finished piece of the job, or None.

        Raises:
            UserError: it was made of something else than `of` (the questions in it, say, in their order).
        """
        path = self.path / "units" / f"{name}.parquet"
        if not path.exists():
            return None
        held = json.loads((pq.read_schema(path).metadata or {}).get(MADE_OF, b"[]"))
        if held != list(of):
            odd = next((pair for pair in zip_longest(held, of) if pair[0] != pair[1]), None)
            raise UserError(
                f"{path}: this piece was made of {len(held)} parts, and now it would be of {len(of)} (first that "
                f"differs: {odd}): batches are planned in another way than when the run began; give a new folder"
            )
        return read_frame(path)

    def finish_unit(self, name: str, frame: pd.DataFrame, of: Sequence[str] = ()) -> None:
        """Keep a finished piece, and what it was made of."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        told = {**(table.schema.metadata or {}), MADE_OF: json.dumps(list(of)).encode()}
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(told), buffer)
        write_atomically(self.path / "units" / f"{name}.parquet", buffer.getvalue())

    @property
    def finished(self) -> bool:
        return (self.path / "run.json").exists() and bool(read_run(self.path).get("about"))

    def finish(self, about: Mapping[str, Any], **frames: pd.DataFrame) -> None:
        """Write the frames, then mark the run as finished."""
        for name, frame in frames.items():
            write_frame(self.path / f"{name}.parquet", frame)
        self._write(about)


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Write JSON for people to read, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    return write_atomically(path, text.encode("utf-8"))


def read_run(folder: str | Path) -> dict[str, Any]:
    """The run.json of a run folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    path = Path(folder) / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a run folder (no run.json)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error})") from error
    if not isinstance(content, dict) or "kind" not in content:
        raise UserError(f"{path}: not a run of mechunlearn (no field 'kind')")
    return content


def read_finished(folder: str | Path, kind: str, what: str) -> dict[str, Any]:
    """The run.json of a finished run of this kind; `what` is the kind in words.

    Raises:
        UserError: as `read_run`; a run of another kind, or one that is not finished.
    """
    run = read_run(folder)
    if run["kind"] != kind:
        raise UserError(f"{folder}: holds a run of kind {run['kind']!r}, not {what}")
    if not run.get("about"):
        raise UserError(f"{folder}: the run is not finished; run the same call again to go on")
    return run


def _other(theirs: Any, ours: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ: (name, was, now); those within settings with a dot (`before.configuration`)."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _other(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
    elif theirs != ours:
        yield name, theirs, ours


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
