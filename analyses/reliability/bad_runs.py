"""Run folders that are broken: name, and what makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_files import DEEP, Make, cut, frame, run_json, write

FRAMES = {"dissection": ("frame", "controls", "facts", "answers"), "unlearning": ("frame",), "attacks": ("frame",),
          "evaluation": ("frame",)}  # fmt: skip
RUN_JSONS: dict[str, Make] = {
    "cut": lambda: cut("out/run.json"), "empty": write("out/run.json", ""),
    "binary": write("out/run.json", b"\xff\0\1"),
    "list": write("out/run.json", "[]"), "null": write("out/run.json", "null"), "text": write("out/run.json", '"kind"'),
    "deep": write("out/run.json", "[" * DEEP + "]" * DEEP), "no-kind": run_json(lambda held: held.pop("kind") and None),
    "kind-unknown": run_json(lambda held: held.update(kind="nope")),
    "kind-number": run_json(lambda held: held.update(kind=5)),
    "kind-list": run_json(lambda held: held.update(kind=["x"])),
    "kind-null": run_json(lambda held: held.update(kind=None)),
    "long-number": write("out/run.json", '{"kind": ' + "9" * 5000 + "}"),
    "folder": lambda: (Path("out/run.json").unlink(), Path("out/run.json").mkdir()),
    "about-list": run_json(lambda held: held.update(about=[1])),
    "about-text": run_json(lambda held: held.update(about="x")),
    "about-number": run_json(lambda held: held.update(about=5)),
    "about-empty-inside": run_json(lambda held: held.update(about={"x": 1})),
    "settings-text": run_json(lambda held: held["about"].update(settings="x")),
    "settings-null": run_json(lambda held: held["about"].update(settings=None)),
    "settings-empty": run_json(lambda held: held["about"].update(settings={})),
    "settings-numbers": run_json(lambda held: held["about"].update(settings=dict.fromkeys(held["about"]["settings"],
    5))),
    "settings-nulls": run_json(lambda held: held["about"].update(settings=dict.fromkeys(held["about"]["settings"]))),
    "notes-number": run_json(lambda held: held["about"].update(notes=5)),
    "prompts-unknown": run_json(lambda held: held["about"]["settings"].update(prompts="nope")),
}  # fmt: skip


def _numbers(held: Any) -> list[str]:
    return [column for column in held.columns if held[column].dtype.kind == "f"]


FRAME_CHANGES: dict[str, Callable[[str], Make]] = {
    "cut": lambda name: lambda: cut(f"out/{name}.parquet"),
    "empty": lambda name: write(f"out/{name}.parquet", ""),
    "text": lambda name: write(f"out/{name}.parquet", "not a frame"),
    "missing": lambda name: lambda: Path(f"out/{name}.parquet").unlink(),
    "folder": lambda name: lambda: (Path(f"out/{name}.parquet").unlink(), Path(f"out/{name}.parquet").mkdir()),
    "no-columns": lambda name: frame(name, lambda held: held[[]]),
    "other-columns": lambda name: frame(name, lambda held: held.add_prefix("x")),
    "texts-for-numbers": lambda name: frame(name, lambda held: held.assign(**dict.fromkeys(_numbers(held), "x"))),
    "no-rows": lambda name: frame(name, lambda held: held.iloc[:0]),
}  # fmt: skip
