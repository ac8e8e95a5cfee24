"""Files of facts, of text and of settings that are broken: name, the file, what makes it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

from bad_files import (
    DEEP,
    Make,
    bomb,
    cut,
    facts,
    field,
    nothing,
    parquet,
    raw_line,
    without,
    write,
)

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
