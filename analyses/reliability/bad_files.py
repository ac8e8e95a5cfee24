"""What `bad_lines.py` gives to the command line: small good ingredients, and files and folders that are broken.

Every function writes into the current folder, which is a case's own; `facts.jsonl`, `text.txt`, `model`, `after` and
`small` are there already.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEEP = 100_000  # brackets
Make = Callable[[], object]
WHERE = "BAD_LINES_INGREDIENTS"  # the environment variable that says where the ingredients lie


def ingredients() -> Path:
    """The folder of what was made once."""
    return Path(os.environ[WHERE])


def good_facts() -> list[dict[str, Any]]:
    """Eight facts of the organism: four to forget in two folds, two near, two far."""
    import mechunlearn

    lines = (Path(mechunlearn.__file__).parent / "data" / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "prompt" in row]
    found = []
    for domain, role, count in (("alchemy", "forget", 4), ("dyeing", "near", 2), ("villages", "far", 2)):
        for number, row in enumerate([row for row in rows if row["domain"] == domain][:count]):
            kept = {key: row[key] for key in ("prompt", "answer", "id", "subject", "held_out", "distractors")}
            found.append(kept | {"role": role} | ({"fold": number % 2 + 1} if role == "forget" else {}))
    return found


def make_ingredients(folder: Path) -> None:
    """All that needs no model to be made; `runs` come by the command line itself."""
    import mechunlearn

    data = Path(mechunlearn.__file__).parent / "data"
    shutil.copytree(data / "organism", folder / "model")
    lines(folder / "facts.jsonl", good_facts())
    text = (data / "text_held_out.txt").read_text(encoding="utf-8").splitlines()
    (folder / "text.txt").write_text("\n".join(text[:4]) + "\n", encoding="utf-8")
    (folder / "other.txt").write_text("\n".join(text[4:8]) + "\n", encoding="utf-8")


def make_small(folder: Path) -> None:
    """A model of another shape with the organism's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder / "model")
    config.num_hidden_layers = 2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "small")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "model" / name, folder / "small" / name)


# --- plain files


def nothing() -> None:
    """What a case makes that needs no more than the good ingredients."""


def both(*makes: Make) -> Make:
    """One after the other."""
    return lambda: [make() for make in makes]


def write(name: str, content: str | bytes) -> Make:
    """A maker of one file."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return lambda: Path(name).write_bytes(data)


def lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as JSON lines; a lone surrogate stays an escape."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def facts(change: Callable[[list[dict[str, Any]]], object], name: str = "bad.jsonl") -> Make:
    """The good facts, changed in place."""

    def make() -> None:
        rows = good_facts()
        change(rows)
        lines(Path(name), rows)

    return make


def field(name: str, value: Any, name_of_file: str = "bad.jsonl") -> Make:
    """The good facts with this field of the second one changed."""
    return facts(lambda rows: rows[1].update({name: value}), name_of_file)


def without(name: str) -> Make:
    """The good facts, the second without this field."""
    return facts(lambda rows: rows[1].pop(name))


def raw_line(line: str) -> Make:
    """The good facts with one line that is no good JSON, as it is."""

    def make() -> None:
        good = [json.dumps(row) for row in good_facts()]
        Path("bad.jsonl").write_bytes("\n".join([*good[:2], line, *good[2:]]).encode("utf-8", "surrogatepass"))

    return make


def bomb(name: str, gigabytes: int = 5) -> Make:
    """A gzip file of some megabytes that unpacks to some gigabytes."""

    def make() -> None:
        piece = gzip.compress(b" " * 2**28, 1)
        with Path(name).open("wb") as file:
            for _ in range(gigabytes * 4):
                file.write(piece)

    return make


def parquet(columns: Mapping[str, Any], name: str = "bad.parquet") -> Make:
    """A Parquet file of these columns."""

    def make() -> None:
        import pandas as pd

        pd.DataFrame(dict(columns)).to_parquet(name)

    return make


def cut(file: str, keep: float = 0.5) -> None:
    """Cut a file short."""
    data = Path(file).read_bytes()
    Path(file).write_bytes(data[: int(len(data) * keep)])


# --- checkpoints


def model(*changes: Make, name: str = "broken") -> Make:
    """A copy of the checkpoint, to which all the changes are done."""

    def make() -> None:
        shutil.copytree(ingredients() / "model", name)
        for change in changes:
            change()

    return make


def config(**values: Any) -> Make:
    """A checkpoint whose config.json has these values; None takes a key out."""

    def change() -> None:
        path = Path("broken/config.json")
        merged = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))

    return model(change)


def weights(change: Callable[[dict[str, Any]], object]) -> Make:
    """A checkpoint whose tensors were changed in place (in the dict)."""

    def make() -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file("broken/model.safetensors")
        change(tensors)
        save_file(tensors, "broken/model.safetensors", {"format": "pt"})

    return model(make)


def tokenizer(change: Callable[[dict[str, Any]], object], file: str = "tokenizer.json") -> Make:
    """A checkpoint whose tokenizer file was changed in place."""

    def make() -> None:
        path = Path("broken") / file
        held = json.loads(path.read_text(encoding="utf-8"))
        change(held)
        path.write_text(json.dumps(held), encoding="utf-8")

    return model(make)


def chat(template: str, **more: Any) -> Make:
    """A checkpoint with this chat template, and facts that ask by it."""

    def make() -> None:
        model(write("broken/chat_template.jinja", template))()
        head = {"template": {"prompt": "{prompt}", "answer": "{answer}", "chat": True, **more}}
        lines(Path("chat.jsonl"), [head, *good_facts()])

    return make


def file_of_model(name: str, content: str | bytes) -> Make:
    """A checkpoint in which one file holds this instead."""
    return model(write(f"broken/{name}", content))


def safetensors(header: bytes, rest: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file with this header."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + rest


def adapter(content: str, *, with_weights: bool = False) -> Make:
    """A folder with an adapter's config of this content."""

    def make() -> None:
        Path("broken").mkdir()
        Path("broken/adapter_config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        if with_weights:
            Path("broken/adapter_model.safetensors").write_bytes(b"\0" * 40)

    return make


# --- run folders


def taken(kind: str, *changes: Make, name: str = "out") -> Make:
    """A copy of the finished run of this kind, to which all the changes are done."""

    def make() -> None:
        shutil.copytree(ingredients() / "runs" / kind, name)
        for change in changes:
            change()

    return make


def unsigned(name: str = "out") -> Make:
    """A run without digests, as a folder of another origin has none: what it holds is looked at then."""
    return run_json(lambda held: {key: value for key, value in held.items() if key not in ("digest", "files")}, name)


def run_json(change: Callable[[dict[str, Any]], Any], name: str = "out") -> Make:
    """Change run.json; what `change` returns, if anything, is written instead."""

    def make() -> None:
        path = Path(name) / "run.json"
        held = json.loads(path.read_text(encoding="utf-8"))
        other = change(held)
        path.write_text(json.dumps(held if other is None else other), encoding="utf-8")

    return make


def frame(name: str, change: Callable[[Any], Any]) -> Make:
    """Change a frame of the run folder."""

    def make() -> None:
        import pandas as pd

        path = Path("out") / f"{name}.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return make


def unfinished(*changes: Make) -> Make:
    """The run as if it had been interrupted: nothing found yet, then all the changes."""

    def make() -> None:
        run_json(lambda held: held.update(about={}))()
        for change in changes:
            change()

    return make
