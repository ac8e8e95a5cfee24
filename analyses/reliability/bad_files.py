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


# --- the tables: name, what makes it. Facts lie in the file that the name of the table's entry says

ONE = {"prompt": "Turanum is distilled from", "answer": "umber ash"}
CSV = "prompt,answer,role\n"
GOOD_CELLS = "Turanum is,umber ash,forget\nVirn is,chalk,near\n"


def _deep_line(inner: str = "") -> str:
    return '{"prompt": "a", "answer": "b", "x": ' + "[" * DEEP + inner + "]" * DEEP + "}"


FACT_FILES: dict[str, tuple[str, Make]] = {
    "folder": ("folder", lambda: Path("folder").mkdir()),
    "folder-jsonl": ("bad.jsonl", lambda: Path("bad.jsonl").mkdir()),
    "fifo": ("bad.jsonl", lambda: os.mkfifo("bad.jsonl")),
    "loop-of-links": ("bad.jsonl", lambda: Path("bad.jsonl").symlink_to("bad.jsonl")),
    "link-to-nothing": ("bad.jsonl", lambda: Path("bad.jsonl").symlink_to("gone")),
    "empty": ("bad.jsonl", write("bad.jsonl", "")),
    "blank": ("bad.jsonl", write("bad.jsonl", " \n\n\t\n")),
    "binary": ("bad.jsonl", write("bad.jsonl", bytes(range(256)) * 9)),
    "nul": ("bad.jsonl", write("bad.jsonl", b"\0" * 999)),
    "utf-16": ("bad.jsonl", write("bad.jsonl", json.dumps(ONE).encode("utf-16"))),
    "utf-32": ("bad.jsonl", write("bad.jsonl", json.dumps(ONE).encode("utf-32"))),
    "latin-1": ("bad.jsonl", write("bad.jsonl", '{"prompt": "caf\u00e9", "answer": "b"}'.encode("latin-1"))),
    "bom-alone": ("bad.jsonl", write("bad.jsonl", b"\xef\xbb\xbf")),
    "two-boms": ("bad.jsonl", write("bad.jsonl", b"\xef\xbb\xbf" * 2 + json.dumps(ONE).encode())),
    "raw-surrogate": ("bad.jsonl", raw_line('{"prompt": "a\ud800", "answer": "b"}')),
    "html": ("bad.jsonl", write("bad.jsonl", "<!DOCTYPE html><html><body>404</body></html>")),
    "lfs-pointer": ("bad.jsonl", write("bad.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
    "not-json": ("bad.jsonl", raw_line("{prompt: a}")),
    "cut-line": ("bad.jsonl", raw_line('{"prompt": "a", "answ')),
    "single-quotes": ("bad.jsonl", raw_line("{'prompt': 'a', 'answer': 'b'}")),
    "two-objects-a-line": ("bad.jsonl", raw_line(json.dumps(ONE) * 2)),
    "line-list": ("bad.jsonl", raw_line("[1, 2]")),
    "line-null": ("bad.jsonl", raw_line("null")),
    "line-number": ("bad.jsonl", raw_line("7")),
    "line-text": ("bad.jsonl", raw_line('"a"')),
    "line-empty-object": ("bad.jsonl", raw_line("{}")),
    "line-control-character": ("bad.jsonl", raw_line('{"prompt": "a\x01", "answer": "b"}')),
    "line-nan": ("bad.jsonl", raw_line('{"prompt": NaN, "answer": "b"}')),
    "fold-infinity": ("bad.jsonl", raw_line('{"prompt": "q", "answer": "b", "role": "forget", "fold": Infinity}')),
    "deep-line": ("bad.jsonl", raw_line(_deep_line())),
    "deep-prompt": ("bad.jsonl", raw_line('{"prompt": ' + "[" * DEEP + "]" * DEEP + ', "answer": "b"}')),
    "deep-open": ("bad.jsonl", write("bad.jsonl", "[" * DEEP)),
    "deep-objects": ("bad.jsonl", write("bad.jsonl", '{"a":' * DEEP + "1" + "}" * DEEP)),
    "deep-array": ("bad.json", write("bad.json", "[" + _deep_line() + "]")),
    "long-number": ("bad.jsonl", raw_line('{"prompt": "q", "answer": "b", "fold": ' + "9" * 5000 + "}")),
    "long-number-array": ("bad.json", write("bad.json", '[{"prompt": "q", "answer": ' + "9" * 5000 + "}]")),
    "array-open": ("bad.json", write("bad.json", "[" + json.dumps(ONE))),
    "array-of-numbers": ("bad.json", write("bad.json", "[1, 2, 3]")),
    "array-empty": ("bad.json", write("bad.json", "[]")),
    "array-of-lists": ("bad.json", write("bad.json", '[["a", "b"]]')),
    "array-nested": ("bad.json", write("bad.json", json.dumps([[ONE]]))),
    "object-empty": ("bad.json", write("bad.json", "{}")),
    "object-two-lists": ("bad.json", write("bad.json", json.dumps({"train": [ONE], "test": [ONE]}))),
    "object-of-nothing-known": ("bad.json", write("bad.json", '{"a": 1}')),
    "array-trailing-comma": ("bad.json", write("bad.json", "[" + json.dumps(ONE) + ",]")),
    "arc": ("bad.json", write("bad.json", json.dumps([{"question": "q", "choices": {"text": ["a"]},
    "answerKey": "A"}]))),
    "template-alone": ("bad.jsonl", write("bad.jsonl", '{"template": {"prompt": "{prompt}"}}')),
    "unknown-suffix-gone": ("bad.xyz", nothing),
    "missing-jsonl": ("gone.jsonl", nothing),
    "missing": ("gone", nothing),
    "missing-folder": ("gone/facts.jsonl", nothing),
    "below-a-file": ("text.txt/facts.jsonl", nothing),
    "missing-parquet": ("gone.parquet", nothing),
    "plain-text": ("text.txt", nothing),
    "checkpoint": ("model", nothing),
    "weights": ("model/model.safetensors", nothing),
    "config": ("model/config.json", nothing),
    "endless": ("/dev/zero", nothing),
    "random-device": ("/dev/urandom", nothing),
    "null-device": ("/dev/null", nothing),
    "memory-of-process": ("/proc/self/mem", nothing),
    "unknown-organism": ("organism:nope", nothing),
    "organism-empty-set": ("organism:", nothing),
    "30-megabytes": ("bad.jsonl", field("prompt", "word " * 6_000_000)),
    "long-answer": ("bad.jsonl", field("answer", "word " * 100_000)),
    "long-held-out": ("bad.jsonl", field("held_out", ["word " * 10_000])),
    "longer-than-context": ("bad.jsonl",
    facts(lambda rows: [row.update(prompt="word " * 200, held_out=[]) for row in rows])),
    "same-id": ("bad.jsonl", facts(lambda rows: rows[1].update(id=rows[0]["id"]))),
    "same-fact-in-both": ("bad.jsonl", facts(lambda rows: rows.append(rows[0] | {"role": "near"}))),
    "all-answers-null": ("bad.jsonl", facts(lambda rows: [row.update(answer=None) for row in rows])),
    "no-forget": ("bad.jsonl", facts(lambda rows: [row.update(role="near") for row in rows])),
    "csv-header-alone": ("bad.csv", write("bad.csv", CSV)),
    "csv-no-header": ("bad.csv", write("bad.csv", GOOD_CELLS)),
    "csv-more-cells": ("bad.csv", write("bad.csv", CSV + GOOD_CELLS + "a,b,forget,d,e\n")),
    "csv-fewer-cells": ("bad.csv", write("bad.csv", CSV + GOOD_CELLS + "a\n")),
    "csv-open-quote": ("bad.csv", write("bad.csv", CSV + GOOD_CELLS + '"a,b,forget\n')),
    "csv-quote-inside": ("bad.csv", write("bad.csv", CSV + '"a"b,c,forget\n')),
    "csv-huge-cell": ("bad.csv", write("bad.csv", CSV + f"{'a' * 200_000},b,forget\n")),
    "csv-nul": ("bad.csv", write("bad.csv", CSV + "a\0,,forget\n")),
    "csv-semicolons": ("bad.csv", write("bad.csv", (CSV + GOOD_CELLS).replace(",", ";"))),
    "csv-same-column-twice": ("bad.csv", write("bad.csv", "prompt,prompt,answer\na,b,c\n")),
    "csv-fold-of-5000-digits": ("bad.csv",
    write("bad.csv", f"prompt,answer,role,fold\na,b,forget,{'9' * 5000}\nc,d,near,1\n")),
    "csv-fold-superscript": ("bad.csv", write("bad.csv", "prompt,answer,fold\na,b,\u00b2\n")),
    "csv-deep-cell": ("bad.csv", write("bad.csv", f"prompt,answer\n{'[' * 50_000},\n")),
    "csv-utf-16": ("bad.csv", write("bad.csv", (CSV + GOOD_CELLS).encode("utf-16"))),
    "csv-old-mac-lines": ("bad.csv", write("bad.csv", (CSV + GOOD_CELLS + '"x').replace("\n", "\r"))),
    "tsv-with-commas": ("bad.tsv", write("bad.tsv", CSV + GOOD_CELLS)),
    "csv-list-for-answer": ("bad.csv", write("bad.csv", 'prompt,answer\na,"[""x"", ""y""]"\n')),
    "parquet-empty-file": ("bad.parquet", write("bad.parquet", "")),
    "parquet-text": ("bad.parquet", write("bad.parquet", json.dumps(ONE))),
    "parquet-magic-alone": ("bad.parquet", write("bad.parquet", b"PAR1" + b"\xff" * 90 + b"PAR1")),
    "parquet-folder": ("bad.parquet", lambda: Path("bad.parquet").mkdir()),
    "parquet-no-rows": ("bad.parquet", parquet({"prompt": [], "answer": []})),
    "parquet-numbers": ("bad.parquet", parquet({"prompt": [1, 2], "answer": [3.0, 4.0]})),
    "parquet-bytes": ("bad.parquet", parquet({"prompt": [b"a"], "answer": [b"b"]})),
    "parquet-nan": ("bad.parquet", parquet({"prompt": [float("nan")], "answer": ["b"]})),
    "parquet-cut": ("bad.parquet",
    lambda: (parquet({"prompt": ["a"] * 99, "answer": ["b"] * 99})(), cut("bad.parquet"))),
    "gz-not-gzip": ("bad.jsonl.gz", write("bad.jsonl.gz", json.dumps(ONE))),
    "gz-cut": ("bad.jsonl.gz", write("bad.jsonl.gz", gzip.compress(json.dumps(ONE).encode() * 99)[:-20])),
    "gz-empty": ("bad.jsonl.gz", write("bad.jsonl.gz", gzip.compress(b""))),
    "gz-bomb": ("bad.jsonl.gz", bomb("bad.jsonl.gz")),
}  # fmt: skip
TYPES: dict[str, Any] = {
    "number": 5.5,
    "true": True,
    "object": {"a": 1},
    "list": [1, [2]],
    "half": "a\ud800",
    "empty": "",
}
FIELDS = ("prompt", "answer", "id", "subject", "held_out", "distractors", "role", "fold", "paraphrased_answer")
ACCEPTED = {("subject", "empty"), ("id", "empty"), ("paraphrased_answer", "empty")}
FACT_FILES |= {
    f"{name}-{kind}": ("bad.jsonl", field(name, value))
    for name in FIELDS for kind, value in TYPES.items() if (name, kind) not in ACCEPTED
}  # fmt: skip
FACT_FILES |= {f"no-{name}": ("bad.jsonl", without(name)) for name in ("prompt", "answer")}
FACT_FILES |= {
    f"{name}-blank": ("bad.jsonl", field(name, value))
    for name, value in {"prompt": " \n", "answer": "\t\u3000", "held_out": [" "], "distractors": ["a", ""]}.items()
}
FACT_FILES |= {
    "role-capital": ("bad.jsonl", field("role", "Forget")),
    "fold-huge": ("bad.jsonl", field("fold", 10**30)),
    "prompt-null": ("bad.jsonl", field("prompt", None)),
    "held_out-null-inside": ("bad.jsonl", field("held_out", ["a", None])),
}
TEMPLATES: dict[str, Any] = {
    "list": [], "text": "x", "unknown": {"x": 1}, "no-place": {"prompt": "Q"},
    "two-places": {"prompt": "{prompt}{prompt}"},
    "number": {"prompt": 5}, "null": {"prompt": None}, "answer-list": {"answer": ["{answer}"]},
    "chat-word": {"chat": "yes"},
    "bos-number": {"bos": 7}, "system-without-chat": {"system": "x"},
    "arguments-list": {"chat": True, "arguments": [1]},
    "arguments-text": {"chat": True, "arguments": "x"}, "system-number": {"chat": True, "system": 5},
    "half": {"prompt": "{prompt}\ud800"}, "chat-without-one": {"chat": True}, "bos-list": {"bos": []},
    "arguments-unknown-template": {"chat": True, "arguments": {"chat_template": "gone"}},
}  # fmt: skip
FACT_FILES |= {
    f"template-{name}": ("bad.jsonl", facts(lambda rows, value=value: rows.insert(0, {"template": value})))
    for name, value in TEMPLATES.items()
}

TEXT_FILES: dict[str, tuple[str, Make]] = {
    name: FACT_FILES[name]
    for name in ("folder", "fifo", "loop-of-links", "empty", "blank", "binary", "utf-16", "latin-1", "missing",
    "below-a-file",
                 "endless", "null-device", "memory-of-process")
}  # fmt: skip
TEXT_FILES |= {
    "one-long-line": ("bad.txt", write("bad.txt", "word " * 6_000_000)),
    "weights": ("model/model.safetensors", nothing),
}

SETTINGS: dict[str, tuple[str, str | bytes]] = {
    "empty-json": ("bad.json", ""),
    "cut-json": ("bad.json", '{"method": "npo"'),
    "list": ("bad.json", "[1]"),
    "null": ("bad.json", "null"),
    "unknown": ("bad.json", '{"method": "npo", "learningrate": 1}'),
    "deep-json": ("bad.json", '{"set": ' + "[" * DEEP + "]" * DEEP + "}"),
    "deep-set": ("bad.json", '{"method": "npo", "set": {"beta": ' + "[" * 500 + "]" * 500 + "}}"),
    "deep-toml": ("bad.toml", "set = " + "[" * DEEP + "]" * DEEP),
    "deep-toml-key": ("bad.toml", ".".join("a" * 20_000) + " = 1"),
    "long-number": ("bad.json", '{"steps": ' + "9" * 5000 + "}"),
    "long-number-toml": ("bad.toml", "steps = " + "9" * 5000),
    "binary": ("bad.toml", b"\xff\xfe\0"),
    "utf-16": ("bad.json", '{"method": "npo"}'.encode("utf-16")),
    "bom-json": ("bad.json", b'\xef\xbb\xbf{"method": 5}'),
    "broken-toml": ("bad.toml", "method = npo"),
    "toml-twice": ("bad.toml", 'method = "npo"\nmethod = "dpo"\n'),
    "toml-date": ("bad.toml", "steps = 1979-05-27"),
    "toml-inf": ("bad.toml", "learning_rate = inf"),
    "yaml": ("bad.yaml", "method: npo"),
    "set-list": ("bad.json", '{"method": "npo", "set": ["beta"]}'),
    "set-nested": ("bad.json", '{"method": "npo", "set": {"beta": {"a": 1}}}'),
    "set-empty-name": ("bad.json", '{"method": "npo", "set": {"": 1}}'),
    "set-null": ("bad.json", '{"method": "npo", "set": {"beta": null}}'),
    "half": ("bad.json", '{"method": "npo\\ud800"}'),
    "half-key": ("bad.json", '{"\\ud800": 1}'),
    "steps-text": ("bad.json", '{"method": "npo", "steps": "many"}'),
    "steps-half": ("bad.json", '{"method": "npo", "steps": 1.5}'),
    "steps-zero": ("bad.json", '{"method": "npo", "steps": 0}'),
    "steps-true": ("bad.json", '{"method": "npo", "steps": true}'),
    "steps-endless": ("bad.json", '{"method": "npo", "steps": 1' + "0" * 30 + "}"),
    "clip-zero": ("bad.json", '{"method": "npo", "clip": 0}'),
    "clip-negative": ("bad.json", '{"method": "npo", "clip": -1}'),
    "warmup-negative": ("bad.json", '{"method": "npo", "warmup": -1}'),
    "weight-decay-negative": ("bad.json", '{"method": "npo", "weight_decay": -5}'),
    "schedule-unknown": ("bad.json", '{"method": "npo", "schedule": "sine"}'),
    "checkpointing-word": ("bad.json", '{"method": "npo", "checkpointing": "yes"}'),
    "trainable-numbers": ("bad.json", '{"method": "npo", "trainable": [1]}'),
    "trainable-empty": ("bad.json", '{"method": "npo", "trainable": []}'),
    "trainable-empty-word": ("bad.json", '{"method": "npo", "trainable": ""}'),
    "budget-empty": ("bad.json", '{"method": "npo", "budget": {}}'),
    "budget-text": ("bad.json", '{"method": "npo", "budget": {"kl": "low"}}'),
    "layered-text": ("bad.json", '{"method": "npo", "layered": "four"}'),
    "layered-order": ("bad.json", '{"method": "npo", "layered": {"folds": 2, "order": [1, 1]}}'),
    "layered-method": ("bad.json", '{"method": "npo", "layered": {"folds": 2, "method": "dpo"}, "steps": 0}'),
    "stop-list": ("bad.json", '{"method": "npo", "stop": [1]}'),
    "text-number": ("bad.json", '{"method": "npo", "text": 5}'),
    "text-missing": ("bad.json", '{"method": "npo", "text": "gone.txt"}'),
    "text-empty": ("bad.json", '{"method": "npo", "retain_text": "."}'),
    "no-method": ("bad.json", "{}"),
    "method-list": ("bad.json", '{"method": ["npo"]}'),
    "batch-zero": ("bad.json", '{"method": "npo", "batch_size": 0}'),
    "accumulation-zero": ("bad.json", '{"method": "npo", "accumulation": 0}'),
    "accumulation-negative": ("bad.json", '{"method": "npo", "accumulation": -3}'),
    "evaluate-negative": ("bad.json", '{"method": "npo", "evaluate_every": -3}'),
}

BIG = 1_000_000
CONFIGS: dict[str, dict[str, Any]] = {
    "layers-million": {"num_hidden_layers": BIG}, "layers-negative": {"num_hidden_layers": -1},
    "layers-zero": {"num_hidden_layers": 0}, "layers-more": {"num_hidden_layers": 8},
    "layers-fewer": {"num_hidden_layers": 4},
    "layers-text": {"num_hidden_layers": "six"}, "layers-half": {"num_hidden_layers": 2.5},
    "hidden-zero": {"hidden_size": 0}, "hidden-negative": {"hidden_size": -128}, "hidden-huge": {"hidden_size": BIG},
    "hidden-text": {"hidden_size": "128"}, "hidden-other": {"hidden_size": 64}, "hidden-list": {"hidden_size": [128]},
    "heads-odd": {"num_attention_heads": 3}, "heads-zero": {"num_attention_heads": 0},
    "heads-text": {"num_attention_heads": "x"},
    "kv-zero": {"num_key_value_heads": 0}, "kv-odd": {"num_key_value_heads": 3}, "kv-more": {"num_key_value_heads": 8},
    "head-dim-zero": {"head_dim": 0}, "head-dim-odd": {"head_dim": 31}, "head-dim-negative": {"head_dim": -32},
    "vocab-zero": {"vocab_size": 0}, "vocab-huge": {"vocab_size": 10**10}, "vocab-less": {"vocab_size": 1000},
    "vocab-negative": {"vocab_size": -5}, "mlp-zero": {"intermediate_size": 0},
    "mlp-huge": {"intermediate_size": 10**9},
    "eps-text": {"rms_norm_eps": "x"}, "eps-negative": {"rms_norm_eps": -5.0}, "eps-huge": {"rms_norm_eps": 1e300},
    "type-unknown": {"model_type": "nope"}, "type-number": {"model_type": 7}, "type-list": {"model_type": ["llama"]},
    "type-other": {"model_type": "gpt2"}, "type-encoder": {"model_type": "bert", "architectures": ["BertModel"]},
    "type-speech": {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
    "type-remote": {"model_type": "mine",
    "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}},
    "theta-zero": {"rope_parameters": {"rope_theta": 0, "rope_type": "default"}},
    "theta-text": {"rope_parameters": {"rope_theta": "x", "rope_type": "default"}},
    "theta-negative": {"rope_parameters": {"rope_theta": -10.0, "rope_type": "default"}},
    "rope-unknown": {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "nope"}},
    "rope-list": {"rope_parameters": [1]}, "rope-text": {"rope_parameters": "x"},
    "rope-yarn-without-factor": {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn"}},
    "activation-unknown": {"hidden_act": "nope"}, "activation-number": {"hidden_act": 5},
    "context-zero": {"max_position_embeddings": 0}, "context-negative": {"max_position_embeddings": -1},
    "context-text": {"max_position_embeddings": "x"}, "context-tiny": {"max_position_embeddings": 3},
    "tied-text": {"tie_word_embeddings": "x"}, "tied-with-head": {"tie_word_embeddings": True},
    "bias": {"attention_bias": True}, "mlp-bias": {"mlp_bias": True}, "pad-outside": {"pad_token_id": 99999},
    "pad-negative": {"pad_token_id": -7}, "dtype-unknown": {"dtype": "float3"}, "dtype-number": {"dtype": 5},
    "architecture-unknown": {"architectures": ["Nope"], "model_type": None},
    "architectures-text": {"architectures": "x"},
    "quantised-bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "quantised-gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "quantised-awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "quantised-fp8": {"quantization_config": {"quant_method": "fp8"}},
    "quantised-compressed": {"quantization_config": {"quant_method": "compressed-tensors"}},
    "quantised-unknown": {"quantization_config": {"quant_method": "nope"}},
    "quantised-no-method": {"quantization_config": {"bits": 4}}, "quantised-list": {"quantization_config": [4]},
    "quantised-text": {"quantization_config": "4bit"},
    "quantised-empty": {"quantization_config": {"quant_method": None}},
}  # fmt: skip


def _every(tensors: dict[str, Any], change: Callable[[Any], Any]) -> None:
    tensors.update({name: change(tensor) for name, tensor in tensors.items()})


NORM, DOWN, HEAD = "model.norm.weight", "model.layers.3.mlp.down_proj.weight", "lm_head.weight"
HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
MODELS: dict[str, Make] = {f"config-{name}": config(**values) for name, values in CONFIGS.items()}
MODELS |= {
    f"config-{name}": file_of_model("config.json", content)
    for name, content in {
        "empty": "", "cut": '{"model_type": "llama",', "list": "[]", "null": "null", "number": "5", "text": '"llama"',
        "empty-object": "{}", "binary": b"\xff\xfe\0\1", "utf-16": '{"model_type": "llama"}'.encode("utf-16"),
        "deep": '{"model_type": "llama", "x": ' + "[" * DEEP + "]" * DEEP + "}", "nul": b"\0" * 50,
        "long-number": '{"model_type": "llama", "x": ' + "9" * 5000 + "}",
        "half": '{"model_type": "llama\\ud800"}', "nan": '{"model_type": "llama", "hidden_size": NaN}',
    }.items()
}  # fmt: skip
MODELS |= {
    f"weights-{name}": file_of_model("model.safetensors", content)
    for name, content in {
        "empty": b"", "random": bytes(range(256)) * 40, "html": b"<html>404</html>", "short": b"\0" * 4,
        "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5747104\n",
        "header-huge": safetensors(HEADER, length=2**62), "header-cut": safetensors(HEADER, length=len(HEADER) + 50),
        "header-list": safetensors(b"[]"), "header-text": safetensors(b"not json at all"),
        "header-deep": safetensors(b"[" * DEEP),
        "header-no-tensor": safetensors(b"{}"), "body-missing": safetensors(HEADER),
        "body-short": safetensors(HEADER, b"\0" * 4),
        "shape-huge": safetensors(b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,8]}}',
        b"\0" * 8),
        "dtype-unknown": safetensors(b'{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    }.items()
}  # fmt: skip
MODELS |= {
    "weights-cut": model(lambda: cut("broken/model.safetensors")),
    "weights-folder": model(lambda: (Path("broken/model.safetensors").unlink(),
    Path("broken/model.safetensors").mkdir())),
    "weights-fifo": model(lambda: (Path("broken/model.safetensors").unlink(), os.mkfifo("broken/model.safetensors"))),
    "weights-missing-tensor": weights(lambda held: held.pop(DOWN)),
    "weights-extra-tensor": weights(lambda held: held.update(extra=held[NORM].clone())),
    "weights-nan": weights(lambda held: held[DOWN].fill_(float("nan"))),
    "weights-one-infinite": weights(lambda held: held[DOWN][0].fill_(float("inf"))),
    "weights-huge": weights(lambda held: _every(held, lambda tensor: tensor * 1e38)),
    "weights-other-shape": weights(lambda held: held.update({DOWN: held[DOWN][:, :100].clone()})),
    "weights-transposed": weights(lambda held: held.update({DOWN: held[DOWN].T.contiguous()})),
    "weights-flat": weights(lambda held: held.update({NORM: held[NORM][None].clone()})),
    "weights-scalar": weights(lambda held: held.update({NORM: held[NORM].sum()})),
    "weights-empty-tensor": weights(lambda held: held.update({NORM: held[NORM][:0].clone()})),
    "weights-peft-names": weights(
        lambda held: [held.update({f"base_model.model.{name}": held.pop(name)}) for name in list(held)]
    ),
    "weights-lora": weights(lambda held: held.update({DOWN.replace("weight", "lora_A.weight"): held[DOWN].clone()})),
    "weights-head-of-other-vocabulary": weights(lambda held: held.update({HEAD: held[HEAD][:1000].clone()})),
    "weights-pickled": model(lambda: Path("broken/model.safetensors").rename("broken/pytorch_model.bin")),
    "weights-none": model(lambda: Path("broken/model.safetensors").unlink()),
    "index-broken": model(write("broken/model.safetensors.index.json", "{"),
    lambda: Path("broken/model.safetensors").unlink()),
    "index-missing-shard": model(
        write("broken/model.safetensors.index.json", json.dumps({"weight_map": {NORM: "gone.safetensors"}})),
        lambda: Path("broken/model.safetensors").rename("broken/other.safetensors"),
    ),
    "index-list": model(
        write("broken/model.safetensors.index.json", "[]"),
        lambda: Path("broken/model.safetensors").rename("broken/other.safetensors"),
    ),
    "tokenizer-none": model(
        lambda: [Path(f"broken/{name}").unlink() for name in ("tokenizer.json", "tokenizer_config.json")]
    ),
    "tokenizer-config-alone": model(lambda: Path("broken/tokenizer.json").unlink()),
    "tokenizer-model-null": tokenizer(lambda held: held.update(model=None)),
    "tokenizer-vocab-empty": tokenizer(lambda held: held["model"].update(vocab={})),
    "tokenizer-vocab-list": tokenizer(lambda held: held["model"].update(vocab=[])),
    "tokenizer-ids-negative": tokenizer(lambda held: held["model"]["vocab"].update(Zz=-1)),
    "tokenizer-ids-huge": tokenizer(lambda held: held["model"]["vocab"].update(Zz=2**40)),
    "tokenizer-larger": tokenizer(
        lambda held: held["model"].update(vocab={word: (at + 5000 if at > 20 else at) for word,
        at in held["model"]["vocab"].items()})
    ),
    "tokenizer-added-outside": tokenizer(lambda held: held["added_tokens"].append(dict(held["added_tokens"][0], id=9000,
    content=" is"))),
    "tokenizer-merges-broken": tokenizer(lambda held: held["model"].update(merges=[["a"], 5])),
    "tokenizer-type-unknown": tokenizer(lambda held: held["model"].update(type="Nope")),
    "tokenizer-max-length-zero": tokenizer(lambda held: held.update(model_max_length=0, truncation_side="x"),
    "tokenizer_config.json"),
    "tokenizer-class-unknown": tokenizer(lambda held: held.update(tokenizer_class=["x"]), "tokenizer_config.json"),
    "tokenizer-side-unknown": tokenizer(lambda held: held.update(padding_side="up"), "tokenizer_config.json"),
    "tokenizer-bos-number": tokenizer(lambda held: held.update(bos_token=5), "tokenizer_config.json"),
    "tokenizer-bos-object": tokenizer(lambda held: held.update(bos_token={"x": 1}), "tokenizer_config.json"),
    "empty-folder": lambda: Path("broken").mkdir(),
    "a-file": write("broken", "x"),
    "missing": nothing,
    "fifo": lambda: os.mkfifo("broken"),
    "loop-of-links": lambda: Path("broken").symlink_to("broken"),
    "config-folder": model(lambda: (Path("broken/config.json").unlink(), Path("broken/config.json").mkdir())),
    "config-fifo": model(lambda: (Path("broken/config.json").unlink(), os.mkfifo("broken/config.json"))),
    "config-missing": model(lambda: Path("broken/config.json").unlink()),
    "generation-config-broken": file_of_model("generation_config.json", "{"),
    "generation-config-list": file_of_model("generation_config.json", "[]"),
    "run-folder": taken("unlearning", name="broken"),
    "gguf-alone": lambda: (Path("broken").mkdir(), write("broken/model.gguf", "GGUF")()),
}  # fmt: skip
MODELS |= {
    f"tokenizer-file-{name}": file_of_model("tokenizer.json", content)
    for name, content in {"empty": "", "cut": '{"version": "1.0"', "list": "[]", "null": "null", "binary": b"\xff\0",
                          "deep": "[" * DEEP + "]" * DEEP, "empty-object": "{}"}.items()
}  # fmt: skip
MODELS |= {
    f"tokenizer-config-{name}": file_of_model("tokenizer_config.json", content)
    for name, content in {"cut": "{", "list": "[]", "null": "null", "deep": '{"x": ' + "[" * DEEP + "]" * DEEP + "}",
                          "binary": b"\xff\0", "long-number": '{"x": ' + "9" * 5000 + "}"}.items()
}  # fmt: skip
MODELS |= {
    f"adapter-{name}": adapter(content, with_weights=with_weights)
    for name, content, with_weights in (
        ("empty", "", False), ("list", "[]", False), ("no-base", "{}", False),
        ("base-null", '{"base_model_name_or_path": null}', False),
        ("base-list", '{"base_model_name_or_path": [1]}', False),
        ("base-gone", '{"base_model_name_or_path": "gone"}', True),
        ("good-base", '{"base_model_name_or_path": "organism"}', True), ("deep", "[" * DEEP + "]" * DEEP, False),
        ("half", '{"base_model_name_or_path": "\\ud800"}', False), ("long-number", '{"x": ' + "9" * 5000 + "}", False),
    )
}  # fmt: skip

LOOP = "".join(f"{{% for {name} in range(99999) %}}" for name in "ijk") + "{% endfor %}" * 3
CHATS: dict[str, Make] = {
    name: chat(template, **more)
    for name, template, more in (
        ("raises", "{{ raise_exception('no system turns here') }}", {}), ("syntax", "{% if %}", {}),
        ("open", "{{ messages", {}),
        ("undefined", "{{ messages[7].content.nope.nope }}", {}), ("empty", "", {}), ("constant", "hello", {}),
        ("no-prompt", "{{ messages[1].content }}", {}), ("no-answer", "{{ messages[0].content }}", {}),
        ("twice", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", {}),
        ("capitals", "{% for m in messages %}{{ m.content|upper }}{% endfor %}", {}),
        ("cut-answer", "{{ messages[0].content }}{{ messages[1].content[:3] }}", {}), ("loop", LOOP, {}),
        ("range", "{% for i in range(10**12) %}{% endfor %}", {}), ("large", "{{ 'x' * 10**10 }}", {}),
        ("larger", "{{ ('x' * 10**9) * 10**9 }}", {}), ("power", "{{ 10**10**9 }}", {}),
        ("doubling", "{% set ns = namespace(s='x' * 1000) %}"
         "{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", {}),
        ("unsafe", "{{ ().__class__.__base__.__subclasses__() }}", {}), ("division", "{{ 1 / 0 }}", {}), ("recursion",
         "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", {}), ("include", "{% include 'x' %}", {}),
        ("half", "{{ messages[0].content }}{{ '\\ud800' }}{{ messages[1].content }}", {}),
        ("deep", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", {}),
        ("padding", "{{ '%2000000000d' % 5 }}{{ messages[0].content }}", {}),
        ("binary-filter", "{{ messages|tojson|nope }}", {}),
        ("arguments", "{{ messages[0].content }}{{ messages[1].content }}", {"arguments": {"tokenize": True}}),
        ("arguments-own", "{{ messages[0].content }}{{ messages[1].content }}", {"arguments": {"messages": 5}}),
    )
}  # fmt: skip

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
