"""What a step costs: CIR against gradient difference with the same trained parameters.

    python analyses/benchmarks/unlearning_step.py [--json analyses/results/benchmark_unlearning_step.json]

Both methods train gate, up and down projections and retain by cross-entropy, on the same batches, in one process; steps
of the two alternate, and the medians of their times are compared. Peak memory is that of a process of its own for each,
above what it held before the first step. The paper's form of CIR (MLP breaking, drift) is timed beside.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

import mechunlearn as mu
from mechunlearn.models import clone, hf
from mechunlearn.runs import versions
from mechunlearn.training import Trainer, borrowed
from mechunlearn.unlearning.data.batches import Piece, Sources, assemble, draw
from mechunlearn.unlearning.data.rows import fact_rows, text_rows, trained
from mechunlearn.unlearning.method import Method
from mechunlearn.unlearning.options import Options

METHODS: dict[str, Method] = {
    "gradient difference": mu.GradientDifference(),
    "CIR": mu.CIR(objective=mu.GradientAscent(), retain="cross_entropy"),
    "CIR as published": mu.CIR(faithful=True),
}
MODELS = ("organism", "llama-12x512")
EPOCH = 4  # steps after which CIR looks for its directions again; its time is part of the step's


SPARE = 2  # further epochs before anything is timed: the first only collects


def model_of(name: str) -> TransformerBridge:
    """The organism, or a random Llama of 12 layers and width 512 with the organism's tokenizer."""
    organism = mu.load("organism")
    if name == "organism":
        return organism
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=organism.cfg.d_vocab, hidden_size=512, intermediate_size=1408, num_hidden_layers=12,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    return mu.load(LlamaForCausalLM(config), tokenizer=organism.tokenizer)


def batches(model: TransformerBridge, rows: int) -> Iterator[list[Piece]]:
    """The same steps for everybody: rows to forget, rows to retain, passages."""
    facts = mu.Facts.builtin("organism")
    forget, retain = (fact_rows(trained(chosen), model) for chosen in (facts.forget, facts.retain))
    sources = Sources(forget, retain, text=text_rows(mu.organism_text("train"), model))
    return (assemble(sources, drawn, 1) for drawn in draw(sources, rows, 0))


class Contender:
    """A method at work on its own copy of the model."""

    def __init__(self, name: str, start: TransformerBridge, stack: ExitStack) -> None:
        method, model = METHODS[name], clone(start)
        options = Options(trainable=METHODS["CIR"].trained(start), optimizer="sgd")
        parameters = options.parameters(method, model)
        stack.enter_context(borrowed(hf(model)))
        self.routine = stack.enter_context(method.routine(model, start, parameters, options.settings(), EPOCH))
        self.trainer = Trainer(hf(model), self.routine.phases, 0, parameters)
        self.seconds: list[float] = []

    def step(self, pieces: list[Piece]) -> None:
        began = time.perf_counter()
        self.trainer.advance(pieces)
        self.routine.after_step(self.trainer.step)
        self.seconds.append(time.perf_counter() - began)


def compare(name: str, repeats: int, rows: int) -> dict[str, Any]:
    """Median seconds of a step of each method, on the same batches in turn."""
    start = model_of(name)
    steps = batches(start, rows)
    with ExitStack() as stack:
        contenders = {method: Contender(method, start, stack) for method in METHODS}
        for _ in range(SPARE * EPOCH + repeats):
            pieces = next(steps)
            for contender in contenders.values():
                contender.step(pieces)
    medians = {method: statistics.median(one.seconds[SPARE * EPOCH :]) for method, one in contenders.items()}
    base = medians["gradient difference"]
    return {"seconds": medians, "ratio": {method: seconds / base for method, seconds in medians.items()}}


def peak(name: str, method: str, rows: int) -> dict[str, float]:
    """In a process of its own: mebibytes that its steps took at most, and those of the bases that CIR keeps."""
    start = model_of(name)
    steps = batches(start, rows)
    held = memory("VmRSS")
    with ExitStack() as stack:
        contender = Contender(method, start, stack)
        for _ in range(SPARE * EPOCH):
            contender.step(next(steps))
        bases = sum(tensor.nbytes for tensor in contender.routine.state().values())
    return {"peak": memory("VmHWM"), "before": held, "bases": bases / 2**20}


def memory(which: str) -> float:
    """Mebibytes of this process: "VmRSS" now, "VmHWM" at most. (What getrusage tells begins with the parent's.)"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=16, help="timed steps; a multiple of 4 counts refits fairly")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        name, method = options.peak
        print(json.dumps(peak(name, method, options.rows)))
        return
    found: dict[str, Any] = {"versions": versions(), "rows": options.rows, "repeats": options.repeats}
    for name in options.models.split(","):
        found[name] = compare(name, options.repeats, options.rows) | {"memory": {}}
        for method in METHODS:
            line = [sys.executable, __file__, "--rows", str(options.rows), "--peak", name, method]
            found[name]["memory"][method] = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
        print(name, json.dumps(found[name], indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
