"""Make the organism and its never-knew twin from nothing: the world, its texts, a tokenizer, and two trained models."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import UserError, check_whole
from ..runs import check_run, versions
from .learning import NEVER_KNEW, ORGANISM, QUICK, Recipe, learn
from .text import Corpus, general_text, multiple_choice, statements
from .tokenizer import make_tokenizer
from .world import World, make_world


def build(out: Path, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Build into the folder `out` and return the manifest; ten to twenty minutes on two cores.

    The folder holds `organism/` and `never-knew/` (Hugging Face checkpoints with their tokenizer), `facts.jsonl`,
    `text_train.txt` and `text_held_out.txt` (a passage a line), and `manifest.json`. It appears whole or not at
    all. The two models learn side by side in two processes of one thread each: a script that calls this needs the
    usual `if __name__ == "__main__":`.

    The world, the texts and the tokenizer follow from the seed alone. The weights do too on processors of one
    kind with the same versions; others add numbers in another order and end in slightly different weights.

    `quick` makes a tiny world and two models that learned next to nothing, in seconds, to see the whole path work.

    Raises:
        UserError: `out` exists and is not an empty folder, or cannot be written.
    """
    out = Path(out)
    check_whole("seed", seed, 0)
    check_run(out, "organism")
    if out.is_symlink() or (out.exists() and any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder: give a new one")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifest = _build_into(partial, seed, QUICK if quick else Recipe())
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _build_into(folder: Path, seed: int, recipe: Recipe) -> dict[str, Any]:
    start = time.perf_counter()
    world = make_world(seed, recipe.size)
    text = general_text(world, recipe.passages, recipe.passages_held_out)
    tokenizer = make_tokenizer(_sample(world, text), recipe.vocabulary, recipe.context)
    for name in (ORGANISM, NEVER_KNEW):
        tokenizer.save_pretrained(folder / name)
    _write(folder / "facts.jsonl", world.jsonl())
    _write(folder / "text_train.txt", _lines(text.train))
    _write(folder / "text_held_out.txt", _lines(text.held_out))
    learned = _learn_both(folder, seed, recipe)
    manifest = {
        "seed": seed,
        "facts": len(world.facts),
        "hashes": {
            "facts": world.hash,
            "text_train": _hash(_lines(text.train)),
            "text_held_out": _hash(_lines(text.held_out)),
        },
        "models": learned,
        "seconds": round(time.perf_counter() - start, 1),
        "recipe": asdict(recipe),
        "versions": versions() | {"tokenizers": version("tokenizers")},
    }
    _write(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _learn_both(folder: Path, seed: int, recipe: Recipe) -> dict[str, Any]:
    """What `learn` says of each model. Fresh processes, since a fork would inherit the threads of this one."""
    bars = {ORGANISM: "training the organism, beside it its twin", NEVER_KNEW: None}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = {name: pool.submit(learn, name, folder / name, seed, recipe, bar) for name, bar in bars.items()}
        return {name: job.result() for name, job in jobs.items()}


def _sample(world: World, text: Corpus) -> list[str]:
    """What the tokenizer learns from. The questions count fourfold: there answers are as common as names."""
    rng = random.Random(world.seed)
    questions = [" ".join(multiple_choice(planted, rng)) for planted in world.facts]
    return [*statements(world.facts), *questions * 4, *text.train]


def _lines(passages: Sequence[str]) -> str:
    return "".join(f"{passage}\n" for passage in passages)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
