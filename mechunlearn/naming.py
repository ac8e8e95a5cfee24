"""What a model may be called: a built-in name, a folder, a name on the hub. What is none of these is said at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from .checking import shown
from .errors import UserError, first_line
from .reading import named, there

DATA = Path(__file__).parent / "data"
BUILT_IN = {"organism": DATA / "organism", "organism:never-knew": DATA / "never-knew"}
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PATIENCE = 10.0  # seconds for the hub to answer


def place_of(source: str | Path) -> Path | None:
    """The folder that is meant, which is there; None for a name on the hub.

    Raises:
        UserError: a folder that is not there, or a name that nothing can have.
    """
    name = str(source)
    place = BUILT_IN.get(name, Path(source))
    if there(place) and place.is_file():
        raise UserError(f"{named(name)}: {_file_words(place)}")
    if there(place):
        return place
    if isinstance(source, Path) or name.startswith((".", "/", "~")):
        built_in = ", ".join(BUILT_IN)
        raise UserError(f"{named(name)}: no such folder; give a checkpoint folder, a hub name, or one of {built_in}")
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", name):
        raise UserError(
            f"{shown(name)}: no such folder here, and no name that a model on the hub can have{meant(name, BUILT_IN)}"
        )
    return None


def _file_words(file: Path) -> str:
    """Why a file is no model, and what to give instead."""
    kind = file.suffix.lower()
    if kind == ".gguf":
        return "weights in GGUF are rounded for inference, and not read; give a checkpoint folder with safetensors"
    if kind == ".safetensors":
        return f"a file of weights alone; give its folder, with config.json beside it ({named(file.parent)})"
    if kind in PICKLED:
        return "pickled weights can run code when opened, and are not read; save the model as safetensors in a folder"
    return "a file, where a model is a folder with config.json and safetensors in it"


def check_there(source: str | Path, revision: str | None = None) -> None:
    """Ask whether there is such a model, before anything is opened: libraries try for half a minute, and more.

    Raises:
        UserError: as `place_of`; a hub name of nothing that was fetched before, where the hub has none of that name
            either, does not give it, or is not reached.
    """
    if place_of(source) is not None:
        return
    import huggingface_hub as hub  # half a second that a folder need not wait for

    name = str(source)
    if isinstance(hub.try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, "config.json", revision=revision), timeout=PATIENCE)
    except hub.errors.EntryNotFoundError:  # what else is there, the libraries say when they open it
        return
    except Exception as error:  # of the network, of access, of an offline mode: one for each way there is
        raise UserError(
            f"{name}: no such folder here, and the hub could not give it ({first_line(error)}); check the name, the "
            f"network and your access, or give the path of a checkpoint folder{meant(name, BUILT_IN)}"
        ) from error


def run_name(name: str | None) -> dict[str, str]:
    """The name that a run was given, as it stands in what the run says of itself; nothing where it has none.

    Raises:
        UserError: an empty name, or one that no file can hold.
    """
    if name is None:
        return {}
    if not name.strip() or not name.isprintable():
        raise UserError(f"name={shown(name)}: a run's name is a line of text")
    return {"name": name}


def apart(names: Mapping[str, str]) -> dict[str, str]:
    """What models are called, by their roles; those that are called alike are told apart by their role."""
    known = list(names.values())
    return {role: f"{name} ({role})" if known.count(name) > 1 else name for role, name in names.items()}


def meant(name: str, known: Iterable[str]) -> str:
    """What a misspelt name may stand for, as the end of an error; "" where nothing known is like it."""
    close = get_close_matches(name, list(known), n=1)
    return f". Did you mean {close[0]}?" if close else ""
