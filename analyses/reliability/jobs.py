"""What is interrupted, killed and run twice: every verb on the organism, each a second or two; and what it leaves."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mechunlearn as mu
from mechunlearn.facts import organism_text

FACTS = mu.Facts.builtin("organism")
FORGET, RETAIN = FACTS.forget[:4], FACTS.near[:4]
FOLDED = FACTS.with_items([*FACTS.where(role="forget", fold=1)[:2], *FACTS.where(role="forget", fold=2)[:2]])
QUIET: dict[str, Any] = {"progress": False}
BRIEF: dict[str, Any] = {"steps": 2, "batch_size": 4, "evaluate_every": 1, **QUIET}
SHORT: dict[str, Any] = BRIEF | {"steps": 1}
LONGER: dict[str, Any] = BRIEF | {"steps": 3}
TIMED = "seconds"  # what no two runs share
Models = dict[str, Any]
Job = Callable[[Models, Path], Any]


def models() -> Models:
    """The three models that all jobs are about."""
    found = {"before": mu.load("organism"), "twin": mu.load("organism:never-knew")}
    return found | {"after": mu.unlearn(found["before"], mu.NPO(), FORGET, RETAIN, **LONGER).model}


JOBS: dict[str, Job] = {
    "dissect": lambda m, out: mu.dissect(
        m["before"], m["after"], FORGET, sites=["mlp_coefficients", "value_vectors", "residual"],
        windows="sliding:2", batch_size=2, run=out, **QUIET,
    ),
    "unlearn": lambda m, out: mu.unlearn(m["before"], mu.NPO(), FORGET, RETAIN, run=out, **BRIEF),
    "cir": lambda m, out: mu.unlearn(m["before"], mu.CIR(), FORGET, RETAIN, run=out, **BRIEF),
    "layered": lambda m, out: mu.unlearn(
        m["before"], mu.Layered(method=mu.NPO(), folds=2), FOLDED, RETAIN, run=out, **BRIEF
    ),
    "circuit breakers": lambda m, out: mu.unlearn(
        m["before"], mu.CircuitBreakers(lora_rank=2), FORGET, RETAIN, run=out, **SHORT
    ),
    "attack": lambda m, out: mu.attack(
        m["after"], FACTS.with_items([*FORGET, *RETAIN]), suite=["prompts", "quantise", "noise"],
        before=m["before"], never_knew=m["twin"], run=out, **QUIET,
    ),
    "relearn": lambda m, out: mu.relearn(
        m["after"], FORGET[:2], FORGET[2:], settings=mu.Relearn(trainable="lora", epochs=1),
        never_knew=m["twin"], run=out, **QUIET,
    ),
    "evaluate": lambda m, out: mu.evaluate(
        m["after"], FORGET, before=m["before"], text=organism_text()[:4], letters=False, max_new_tokens=4,
        run=out, **QUIET,
    ),
}  # fmt: skip


def ending(folder: Path) -> dict[str, str]:
    """Every file that a run ended with, and a hash of its bytes; of what is timed, without the times."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(_timeless(file)).hexdigest()
        for file in sorted(folder.rglob("*")) if file.is_file()
    }  # fmt: skip


def _timeless(file: Path) -> bytes:
    if file.suffix == ".parquet":
        frame = pd.read_parquet(file)
        return file.read_bytes() if TIMED not in frame else frame.drop(columns=TIMED).to_parquet()
    if file.name == "run.json":
        content = json.loads(file.read_text(encoding="utf-8"))
        content["about"].pop(TIMED, None)
        return json.dumps({name: content[name] for name in ("kind", "settings", "versions", "about")}).encode()
    if file.suffix == ".json" and file.parent.name == "units":
        return json.dumps({**json.loads(file.read_text(encoding="utf-8")), "digest": None}).encode()
    return file.read_bytes()


def script(does: str | None, what: str, count: int, session: Callable[[int, int, Path], dict[str, Any]]) -> None:
    """The command line of a script: how many, by which seed, and where the figures go; fails where any is wrong."""
    parser = argparse.ArgumentParser(description=does, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{what}", dest="count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        found = session(options.count, options.seed, Path(folder))
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(found["wrong"]))
