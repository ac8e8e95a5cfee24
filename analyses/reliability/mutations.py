"""What `mutated_folders.py` does to a run folder: one change each, by a draw, that says what it did."""

# ruff: noqa: ARG001, ARG005 - changes of one form, of which not every one needs all that they are given
from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from trying import differing, short

DEEP = "@deep@"
SHARED: list[Path] = []  # where all runs lie
Change = Callable[[Path, random.Random], str]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "run.json"
    held = json.loads(file.read_text(encoding="utf-8"))
    change(held)
    for depth in (300, 100_000):
        told = json.dumps(held).replace(f'"{DEEP}{depth}"', "[" * depth + "]" * depth)
        if told != json.dumps(held):
            break
    file.write_text(told, encoding="utf-8")


def place_in(held: dict[str, Any], draw: random.Random) -> tuple[Any, ...]:
    """The path to something inside; each level is the last with the same chance."""
    inner: Any = held
    place: tuple[Any, ...] = (draw.choice(["kind", "settings", "about", "about", "about", "about"]),)
    while True:
        inner = inner[place[-1]]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        if not keys or draw.random() < (0.15 if len(place) == 1 else 0.4):
            return place
        place = (*place, draw.choice(keys))


def field(new: Callable[[random.Random, Any], Any]) -> Change:
    """Another value at a random place of run.json, at any depth. A `LookupError` deletes it."""

    def change(folder: Path, draw: random.Random) -> str:
        held = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        place = place_in(held, draw)
        inner: Any = held
        for key in place[:-1]:
            inner = inner[key]
        try:
            inner[place[-1]] = value = new(draw, inner[place[-1]])
        except LookupError:
            del inner[place[-1]]
            value = "gone"
        rewrite(folder, lambda whole: (whole.clear(), whole.update(held)))
        return f"{'.'.join(map(str, place))} = {short(repr(value), 30)}"

    return change


def delete(draw: random.Random, was: Any) -> Any:
    raise LookupError


FIELDS: dict[str, Change] = {
    "deleted": field(delete), "null": field(lambda draw, was: None), "number": field(lambda draw, was: 5),
    "text": field(lambda draw, was: draw.choice(["", "x", "<b>&\u202e</b>", "NaN", "a" * 100_000])),
    "list": field(lambda draw, was: draw.choice([[], [1, "x", None], [was], [[]]])),
    "table": field(lambda draw, was: draw.choice([{}, {"x": 1}, {"x": {"y": [was]}}])),
    "deep": field(lambda draw, was: f"{DEEP}{draw.choice([300, 100_000])}"),
    "not finite": field(lambda draw, was: draw.choice([float("nan"), float("inf"), -float("inf")])),
    "negative": field(lambda draw, was: draw.choice([-1, -0.5, -(10**30)])),
    "huge": field(lambda draw, was: draw.choice([10**400, 10**18, 1e308])),
    "flag": field(lambda draw, was: draw.choice([True, False])),
}  # fmt: skip


def raw(make_it: Callable[[bytes, random.Random], bytes | None], name: str | None = "run.json") -> Change:
    """Other bytes in a file; None puts a folder in its place. Without a name: in a random frame."""

    def change(folder: Path, draw: random.Random) -> str:
        file = folder / name if name else draw.choice(sorted(folder.glob("*.parquet")))
        new = make_it(file.read_bytes(), draw)
        file.unlink()
        if new is None:
            file.mkdir()
        else:
            file.write_bytes(new)
        return file.name

    return change


def flipped(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


BYTES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "cut": lambda data, draw: data[: draw.randrange(len(data))], "flipped": flipped, "empty": lambda data, draw: b"",
    "a folder": lambda data, draw: None, "binary": lambda data, draw: b"\xff\xfe\0" + data,
    "doubled": lambda data, draw: data + data, "brackets": lambda data, draw: b"[" * 100_000 + b"]" * 100_000,
}  # fmt: skip


def frame(make_it: Callable[[pd.DataFrame, random.Random], pd.DataFrame], column: str = "") -> Change:
    """Another frame in the place of a random one."""

    def change(folder: Path, draw: random.Random) -> str:
        file = draw.choice(sorted(folder.glob("*.parquet")))
        held = pd.read_parquet(file)
        new = make_it(held, draw)
        new.to_parquet(file)
        kinds = {str(name): str(kind) for name, kind in new.dtypes.items()}
        odd = differing({str(name): str(kind) for name, kind in held.dtypes.items()}, kinds)
        return f"{file.name}, {odd or new.attrs.get('told', column)}"

    return change


def column(new: Callable[[pd.Series, random.Random], Any], kinds: str = "fiuObUM") -> Change:
    """Another column in place of a random one of these kinds."""

    def make_it(held: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
        able = [name for name in held if held[name].dtype.kind in kinds] or list(held)
        name = draw.choice(able) if able else "x"
        made = held.assign(**{str(name): new(held[name], draw) if able else 1})
        made.attrs["told"] = str(name)
        return made

    return frame(make_it)


def some(value: Any) -> Callable[[pd.Series, random.Random], Any]:
    """This value in some rows, or in all."""

    def new(was: pd.Series, draw: random.Random) -> pd.Series:
        share = draw.choice([0.1, 0.5, 1.0])
        made = was.astype(str if isinstance(value, str) else float).copy()
        made[np.array([draw.random() <= share for _ in range(len(made))], dtype=bool)] = value
        return made

    return new


def lacking(held: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    return held.drop(columns=draw.choice(list(held))) if len(held.columns) else held


FRAME: dict[str, Change] = {
    "column dropped": frame(lacking), "unknown words": column(some("<i>nope</i>"), "O"),
    "column of texts": column(lambda was, draw: "x", "fib"), "column of numbers": column(lambda was, draw: 5, "Ob"),
    "column of lists": column(lambda was, draw: [[1, 2]] * len(was)), "column of nothing": column(lambda was,
        draw: None),
    "column of flags": column(lambda was, draw: len(was) % 2 == 0), "infinite": column(some(np.inf), "fi"),
    "nan": column(some(np.nan), "fi"), "negative": column(some(-3.0), "fi"), "huge": column(some(1e308), "fi"),
    "column of times": column(lambda was, draw: pd.Timestamp("2025-01-01")), "no rows": frame(lambda held,
        draw: held[:0]),
    "one row": frame(lambda held, draw: held.sample(min(1, len(held)), random_state=draw.randrange(99))),
    "rows twice": frame(lambda held, draw: pd.concat([held, held])), "no columns": frame(lambda held, draw: held[[]]),
    "rows gone": frame(lambda held, draw: held.sample(frac=0.5, random_state=draw.randrange(99))),
    "other names": frame(lambda held, draw: held.add_prefix("x")), "rows shuffled": frame(lambda held,
        draw: held.sample(
        frac=1.0, random_state=draw.randrange(99))), "index": frame(lambda held, draw: held.set_index(list(held)[:1])),
}  # fmt: skip


def another_frame(folder: Path, draw: random.Random) -> str:
    file = draw.choice(sorted(folder.glob("*.parquet")))
    others = [other for other in sorted(SHARED[0].glob("*/*.parquet")) if other.read_bytes() != file.read_bytes()]
    other = draw.choice(others)
    shutil.copy(other, file)
    return f"{file.name} is {other.parent.name}'s {other.name}"


def below(pattern: str) -> Change:
    """A file below the folder (of its pieces, of its model) that is lost, cut, flipped, emptied or a folder."""

    def change(folder: Path, draw: random.Random) -> str:
        files = [file for file in sorted(folder.glob(pattern)) if file.is_file()]
        if not files:
            return "nothing"
        file, how = draw.choice(files), draw.choice(["gone", "cut", "flipped", "empty", "a folder"])
        if how == "gone":
            file.unlink()
        else:
            raw(BYTES[how], file.relative_to(folder).as_posix())(folder, draw)
        return f"{file.relative_to(folder)} {how}"

    return change


def foreign(folder: Path, draw: random.Random) -> str:
    """Something that no run puts there."""
    how = draw.choice(["run below", "kind below", "text", "loop", "lock", "frame", "nowhere", "unfinished"])
    place = folder / ("x" * draw.choice([3, 200]))
    if how in ("run below", "kind below"):
        place.mkdir()
        (place / "run.json").write_text("{" if how == "run below" else '{"kind": "nope"}', encoding="utf-8")
    elif how in ("loop", "nowhere"):
        place.symlink_to(folder if how == "loop" else "/nowhere")
    else:
        name = {"text": "notes.txt", "lock": ".lock", "frame": "y.parquet", "unfinished": ".unfinished-1"}[how]
        (folder / name).write_bytes(b"\xff\0")
    return how


def gone(name: str) -> Change:
    def change(folder: Path, draw: random.Random) -> str:
        file = folder / name if name else draw.choice(sorted(folder.glob("*.parquet")))
        file.unlink()
        return file.name

    return change


CHANGES: dict[str, tuple[Change, float]] = {  # with how many draws of each, in units of --draws
    **{f"field {name}": (change, 1.0) for name, change in FIELDS.items()},
    **{f"frame {name}": (change, 1.0) for name, change in FRAME.items()},
    **{f"run.json {name}": (raw(change), 0.5) for name, change in BYTES.items()}, "run.json gone": (gone("run.json"),
    0.3),
    **{f"frame bytes {name}": (raw(change, None), 0.5) for name, change in BYTES.items()}, "frame gone": (gone(""),
    0.5),
    "frame of another": (another_frame, 1.0), "piece": (below("units/*"), 0.5), "model": (below("**/model/*"), 1.0),
    "stage": (below("stages/*/*"), 0.5), "foreign": (foreign, 1.0),
}  # fmt: skip
