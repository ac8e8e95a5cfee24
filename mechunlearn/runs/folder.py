"""One job's folder: made, gone on with, finished, and opened again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from ..checking import shown
from ..errors import UserError
from ..reading import named
from .files import UNFINISHED, digest, discard, frame_bytes, read_frame, write_atomically, write_frame, write_json
from .lock import NAME, locked
from .makers import makers, versions
from .record import digest_of, read_run, spoilt

log = logging.getLogger(__name__)


@contextmanager
def begun(path: str | Path | None, kind: str, settings: Mapping[str, Any]) -> Iterator[RunFolder | None]:
    """The folder of a job, ours alone inside and rid of what an interruption left; None where no folder is given.

    Raises:
        UserError: as `RunFolder`; another process works on it.
    """
    if path is None:
        yield None
        return
    asked = RunFolder(path, kind, settings, begin=False)
    if asked.finished:
        asked.leave()
        yield asked
        return
    made = asked.make()
    try:
        with locked(asked.path):
            fresh = not asked.exists
            folder = RunFolder(path, kind, settings)  # what it holds may have changed meanwhile
            folder.tidy()
            try:
                yield folder
            except Exception:  # what is refused at the very beginning leaves nothing; an interrupt may be gone on with
                if fresh and {entry.name for entry in folder.path.iterdir()} <= {"run.json", NAME}:
                    (folder.path / "run.json").unlink()
                raise
    finally:
        for folder_made in made:  # the innermost first
            with suppress(OSError):
                folder_made.rmdir()  # only where it is empty


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
        check_run(self.path, kind)
        if self.exists:
            self._check(read_run(self.path))
        elif begin:
            self._write({})

    def _check(self, found: dict[str, Any]) -> None:
        for key, was, now in _other(found["settings"], self.settings):
            raise UserError(
                f"{self.path}: holds a run of other settings ({key} was {shown(was)}, now {shown(now)}); "
                "give a new folder, or the same settings to go on"
            )
        other = _other_versions(found["versions"])
        if other and not found["about"]:
            raise UserError(
                f"{self.path}: holds an unfinished run that other versions began ({other}), whose pieces "
                "would be mixed with new ones; go on with those versions, or give a new folder"
            )

    def _write(self, about: Mapping[str, Any], files: Mapping[str, str] | None = None) -> None:
        content = {"kind": self.kind, "settings": self.settings, "versions": versions(), "about": about}
        content = json.loads(json.dumps(content | {"files": dict(files or {})}, default=str))
        write_json(self.path / "run.json", content | {"digest": digest_of(content)})

    def make(self) -> list[Path]:
        """The folder itself, with nothing in it yet; the folders that had to be made, the innermost first.

        Raises:
            UserError: it cannot be made.
        """
        missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be made: {error.strerror or error}") from error
        return missing

    def leave(self) -> None:
        """Away with the lock of whoever finished this and was interrupted right behind it."""
        if (self.path / NAME).exists():
            with suppress(UserError), locked(self.path):
                self.tidy()

    def tidy(self) -> None:
        """Away with what was cut short while it was written."""
        for left in (*self.path.glob(f"{UNFINISHED}*"), *self.path.glob(f"units/{UNFINISHED}*")):
            discard(left)

    def unit(self, name: str, of: Sequence[str] = ()) -> pd.DataFrame | None:
        """A finished piece of the job, made of just this (the questions in it, say, in their order); or None.

        What was cut, replaced or changed since, or made by another version, is not taken: that is said.
        """
        path, note = self._places(name)
        if not path.exists():
            return None
        if (why := self._spoilt(path, note, of)) is None:
            return read_frame(path)
        log.warning("%s: %s; it is computed again", path, why)
        return None

    def _spoilt(self, path: Path, note: Path, of: Sequence[str]) -> str | None:
        """Why a piece is not taken; None where it is as it was kept."""
        try:
            told = json.loads(note.read_text(encoding="utf-8"))
            wanted = self._note(of, digest(path))
        except (OSError, ValueError, RecursionError):
            return f"{note.name} beside it does not say what it was made of"
        if not isinstance(told, dict):
            return f"{note.name} beside it is no word about it"
        differs = [what for what, value in wanted.items() if told.get(what) != value]
        if "made of" in differs:
            return f"it was made of other things ({_first_odd(told.get('made of'), of)})"
        reasons = {
            "digest": "it was cut or changed since it was written",
            "run": "it belongs to a run of other settings",
            "versions": f"other versions made it ({_other_versions(told.get('versions'))})",
        }
        return reasons[differs[0]] if differs else None

    def finish_unit(self, name: str, frame: pd.DataFrame, of: Sequence[str] = ()) -> None:
        """Keep a finished piece, and beside it what it was made of."""
        path, note = self._places(name)
        content = frame_bytes(frame)
        write_json(note, self._note(of, digest(content)))
        write_atomically(path, content)  # the piece itself counts, so it comes last

    def kept(self, name: str, compute: Callable[[], pd.DataFrame], of: Sequence[str] = ()) -> pd.DataFrame:
        """A piece of the job: read where it is finished, else computed and kept."""
        known = self.unit(name, of)
        if known is None:
            known = compute()
            self.finish_unit(name, known, of)
        return known

    def _places(self, name: str) -> tuple[Path, Path]:
        return self.path / "units" / f"{name}.parquet", self.path / "units" / f"{name}.json"

    def _note(self, of: Sequence[str], held: str) -> dict[str, Any]:
        run = digest(json.dumps([self.kind, self.settings], sort_keys=True).encode("utf-8", "surrogatepass"))
        return {"made of": list(of), "digest": held, "run": run, "versions": makers()}

    @property
    def exists(self) -> bool:
        """Whether the run was begun."""
        return (self.path / "run.json").exists()

    @property
    def finished(self) -> bool:
        """Whether all is there as it was finished. Frames that are lost or spoilt are made again, from the pieces.

        Raises:
            UserError: a model that was kept is another one now, which is never written over.
        """
        if not self.exists:
            return False
        run = read_run(self.path)
        if not run["about"]:
            return False
        for name, why in spoilt(self.path, run).items():
            if "/" in name and (self.path / name).exists():
                raise UserError(
                    f"{self.path / name}: {why}; delete {self.path / name.split('/')[0]} and give the same call again "
                    "to compute it again, or give a new folder"
                )
            log.warning("%s: %s; it is computed again", self.path / name, why)
            return False
        return True

    def finish(self, about: Mapping[str, Any], beside: Sequence[str] = (), /, **frames: pd.DataFrame) -> None:
        """Write the frames, then mark the run as finished; `beside` are folders in it that belong to it, too."""
        for name, frame in frames.items():
            write_frame(self.path / f"{name}.parquet", frame)
        kept = [self.path / f"{name}.parquet" for name in frames]
        kept += [file for folder in beside for file in sorted((self.path / folder).rglob("*")) if file.is_file()]
        self._write(about, {file.relative_to(self.path).as_posix(): digest(file) for file in kept})


def check_run(path: Any, kind: str) -> None:
    """What can be told before anything is opened or measured.

    Raises:
        UserError: no such run can be kept there: it is no folder, or holds something else.
    """
    if path is None:
        return
    if not isinstance(path, str | Path) or not str(path).strip():
        raise UserError(f"run must be the name of a folder, not {path!r:.60}")
    check_free(Path(path))
    if (Path(path) / "run.json").exists() and (found := read_run(path)["kind"]) != kind:
        raise UserError(f"{path}: holds a run of kind {found!r}, not {kind!r}; give a new folder")


def check_free(path: Path) -> None:
    """Raises UserError: something else than a run lies where a run is to be kept."""
    try:
        if b"\0" in str(path).encode("utf-8"):
            raise ValueError("a name holds no zero byte")
        if any(one.exists() and not one.is_dir() for one in (path, *path.parents)):
            raise UserError(f"{path}: is a file, or lies below one; give a folder for the run")
        foreign = not (path / "run.json").exists() and path.is_dir()
        if foreign and any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise UserError(f"{path}: not empty, and not a run folder (no run.json); give a new folder")
    except (OSError, ValueError) as error:  # a name that is too long, or no name at all
        if isinstance(error, UserError):
            raise
        raise UserError(f"{named(path)!a}: cannot be a folder for a run ({error.args[-1]})") from error


def _other(theirs: Any, ours: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ: (name, was, now); those within settings with a dot (`before.configuration`)."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _other(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
    elif theirs != ours:
        yield name, theirs, ours


def _other_versions(began: Any) -> str:
    """Which makers of numbers were others, in words; empty where none was."""
    was = began if isinstance(began, dict) else {}
    return "; ".join(
        f"{name} was {was.get(name, 'not written down')}, now {now}"
        for name, now in makers().items() if was.get(name) != now
    )  # fmt: skip


def _first_odd(was: Any, now: Sequence[str]) -> str:
    """The first of two lists of parts that differs."""
    held = was if isinstance(was, list) else []
    place = next((n for n, pair in enumerate(zip_longest(held, now)) if pair[0] != pair[1]), 0)
    names = [shown(list(parts)[place]) if place < len(parts) else "nothing" for parts in (held, now)]
    return f"{len(held)} parts where it would be {len(now)}; the first that differs was {names[0]} and is {names[1]}"
