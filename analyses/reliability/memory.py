"""A small model with a vocabulary of 256,000: how much memory does every verb take at its peak?

    python analyses/reliability/memory.py --json analyses/results/reliability_memory.json

The weights are 31 MB; what can grow is logits, a megabyte a scored token, and what is made of them. Each verb runs in a
process of its own on long texts and long answers, as it is called and with the settings that its documentation names
for less memory. `peak` is what the process held at most, `before` what it held with the models opened, both in GB.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mechunlearn as mu
from mechunlearn.facts import organism_text

VOCABULARY = 256_000
MOST = 3.0  # GB beyond what was there before
TRAINED = {"unlearn, 4 answers of 500 tokens": 10.0}  # one batch's logits and gradients; accumulation makes it smaller
WORDS = " ".join(organism_text("train")[:200]).split()
Verb = Callable[[Any, Any], Any]


def model(seed: int) -> Any:
    """A Llama of two blocks with a large vocabulary, that reads with the organism's tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    return mu.load(LlamaForCausalLM(config), tokenizer=mu.load("organism").tokenizer)


def passage(first: int, words: int) -> str:
    return " ".join(WORDS[first : first + words])


def facts(count: int, words: int) -> mu.Facts:
    """Facts whose answers are as long as that; half to forget, half to keep."""
    return mu.Facts(
        mu.Fact(passage(n * 7, 20), passage(n * 11 + 300, words), role="near" if n % 2 else "forget", subject=str(n))
        for n in range(count)
    )


QUIET: dict[str, Any] = {"progress": False, "prompts": "own"}
TEXTS = [passage(n * 50, 250) for n in range(8)]
SHORT, LONG = facts(32, 4), facts(8, 350)
PROMPTS = mu.Facts(mu.Fact(passage(n * 3, 350), "umber ash", role="forget") for n in range(32))
STEPS: dict[str, Any] = {"steps": 1, "batch_size": 4, **QUIET}
CASES: dict[str, Verb] = {  # of the model before and after
    "evaluate, 8 passages": lambda a, b: mu.evaluate(b, SHORT, text=TEXTS, before=a, **QUIET),
    "evaluate, 8 answers of 500 tokens": lambda _, b: mu.evaluate(b, LONG, measures=["recall", "rank"], **QUIET),
    "evaluate, batch_size=1": lambda a, b: mu.evaluate(b, LONG, text=TEXTS, before=a, batch_size=1, **QUIET),
    "evaluate, what is said to 32 prompts": lambda a, b: mu.evaluate(
        b, PROMPTS, before=a, measures=["rouge_l"], max_new_tokens=2, **QUIET
    ),
    "dissect": lambda a, b: mu.dissect(a, b, SHORT.forget, **QUIET),
    "dissect, max_tokens=1": lambda a, b: mu.dissect(a, b, SHORT.forget, max_tokens=1, **QUIET),
    "dissect, answers of 500 tokens": lambda a, b: mu.dissect(
        a, b, LONG.forget, sites=["residual", "value_vectors"], windows="all", **QUIET
    ),
    "unlearn": lambda a, _: mu.unlearn(a, "npo", SHORT.forget, SHORT.near, text=TEXTS, **STEPS),
    "unlearn, 4 answers of 500 tokens": lambda a, _: mu.unlearn(a, "npo", LONG.forget, LONG.near, **STEPS),
    "unlearn, accumulation=4": lambda a, _: mu.unlearn(a, "npo", LONG.forget, LONG.near, accumulation=4, **STEPS),
    "attack": lambda a, b: mu.attack(b, SHORT, suite=["prompts", "quantise", "interpolate"], before=a, **QUIET),
    "relearn": lambda _, b: mu.relearn(
        b, SHORT.forget[:8], SHORT.forget[8:], settings=mu.Relearn(epochs=1, batch_size=4), **QUIET
    ),
}  # fmt: skip


def gigabytes() -> float:
    """What this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30


def one(name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    pair = model(0), model(1)
    before = gigabytes()
    CASES[name](*pair)
    return {"case": name, "before": round(before, 2), "peak": round(gigabytes(), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=list(CASES), help="this one, in this process")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return
    found = []
    for name in CASES:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
        row = (
            json.loads(done.stdout.splitlines()[-1])
            if done.returncode == 0
            else {"case": name, "died": done.returncode}
        )
        found.append(row)
        print(row, "" if done.returncode == 0 else done.stderr[-300:], flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(any("died" in row or row["peak"] - row["before"] > TRAINED.get(row["case"], MOST) for row in found))


if __name__ == "__main__":
    main()
