"""What a run folder says of itself: its run.json, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checking import shown
from ..errors import UserError
from ..reading import named, read_text, there
from .files import digest


def read_run(folder: str | Path) -> dict[str, Any]:
    """The run.json of a run folder; settings, versions, about and files are there, empty where nothing is told.

    Raises:
        UserError: there is none, it is not readable, or it was changed since it was written.
    """
    path = Path(folder) / "run.json"
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if not there(path):
            raise UserError(f"{named(folder)}: not a run folder (no run.json)") from error
        raise UserError(f"{path}: not readable ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise UserError(f"{path}: not a run of mechunlearn (no field 'kind')")
    written = content.pop("digest", None)
    if written is not None and written != digest_of(content):
        raise UserError(
            f"{path}: was changed since it was written, so what it says of the run cannot be relied on; "
            "take a copy that was not changed, or make the run again in a new folder"
        )
    for field in ("settings", "versions", "about", "files"):
        content[field] = content.get(field) or {}
        if not isinstance(content[field], dict):
            raise UserError(f"{path}: field {field!r} must be a table of names and values, not {shown(content[field])}")
    if not isinstance(content["about"].get("settings", {}), dict):
        raise UserError(f"{path}: field 'about.settings' must be a table of names and values")
    return content


def read_finished(folder: str | Path, kind: str, what: str) -> dict[str, Any]:
    """The run.json of a finished run of this kind, whose frames are as it wrote them; `what` is the kind in words.

    Raises:
        UserError: as `read_run`; a run of another kind, one that is not finished, a frame that is lost or was changed.
    """
    run = read_run(folder)
    if run["kind"] != kind:
        raise UserError(f"{folder}: holds a run of kind {shown(run['kind'])}, not {what}")
    if not run["about"]:
        raise UserError(f"{folder}: the run is not finished; run the same call again to go on")
    check_files(folder, run, frames=True)
    return run


def check_files(folder: str | Path, run: Mapping[str, Any], *, frames: bool = False) -> None:
    """Raises UserError: a file of a finished run is lost, or was changed since; `frames`: of its frames only."""
    for name, why in spoilt(folder, run, frames=frames).items():
        raise UserError(f"{Path(folder) / name}: {why}; the same call on this folder makes it again")


def spoilt(folder: str | Path, run: Mapping[str, Any], *, frames: bool = False) -> dict[str, str]:
    """Which files of a finished run are not as it wrote them, and why."""
    found = {}
    for name, written in run["files"].items():
        path = Path(folder) / name
        if frames and "/" in name:
            continue
        try:
            if digest(path) != written:
                found[name] = "was cut or changed since the run ended"
        except FileNotFoundError:
            found[name] = "is missing"
        except (OSError, ValueError) as error:
            found[name] = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return found


def digest_of(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass"))
