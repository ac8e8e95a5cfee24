"""Every method under one budget: which settings reach it on the organism, and what they cost.

    python analyses/tune_methods.py                 # the chosen settings, three seeds each, and the page
    python analyses/tune_methods.py --search        # the searched settings, one seed each
    python analyses/tune_methods.py --only npo,cir  # some methods

Asked is recall of at most 5 % on the forget facts, in phrasings never trained, at a KL of at most 0.01 nats a token on
general text and at least 90 % recall on near facts. All methods get the same data, batches, budget and stopping rule.
General text here is held-out text of the organism's world without passages that speak of the domain to be forgotten
(they are measured beside). Finished runs are kept and never run twice; `--worker 1/2` shares them out.
"""  # fmt: skip

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import methods_page
import pandas as pd
import torch
from organism_settings import CHOSEN, CIR_KL, COMMON, FIRM, KL, Trial, apart, unlearn

import mechunlearn as mu
from mechunlearn.evaluation import evaluate, text_kl
from mechunlearn.runs import RunFolder
from mechunlearn.unlearning import kept_row

RESULTS = Path(__file__).parent / "results"
KEYS = ["method", "settings", "seed", "searched"]


def lr(*rates: float, steps: int | None = None, **settings: Any) -> list[Trial]:
    """The same settings at several learning rates."""
    return [Trial(settings, {"learning_rate": rate} | ({"steps": steps} if steps else {})) for rate in rates]


# What was searched, from the outside in.
SEARCHED: dict[str, list[Trial]] = {
    "gradient_ascent": lr(1e-5, 3e-5),
    "gradient_difference": lr(5e-5, retain_weight=1, text_weight=1),
    "gradient_ascent_kl": lr(1e-4, 2e-4, **KL) + lr(1e-4, steps=340, **FIRM),
    "wga": lr(1e-4, 2e-4, **KL),
    "npo": lr(5e-5, retain_weight=1, text_weight=1) + lr(5e-5, retain_weight=3, text_weight=0.3),
    "npo_kl": lr(1e-4, 2e-4, **KL) + lr(1.5e-4, steps=340, **FIRM),
    "simnpo": lr(1e-4, **KL, forget_weight=1)
    + lr(3e-4, **KL, forget_weight=3)
    + lr(2e-4, steps=260, **KL, forget_weight=30, beta=1.0),
    "dpo": lr(1e-4, 3e-4, **KL),
    "idk_dpo": lr(1e-4, 4e-4, **KL) + lr(1e-4, steps=260, **FIRM, forget_weight=10, beta=0.5),
    "idk": lr(1e-4, 4e-4, **KL),
    "undial": lr(1e-4, 4e-4, **KL) + lr(5e-4, **KL, forget_weight=10, beta=25),
    "rmu": lr(3e-4, 1e-3, layer=2, steering=6.5, retain_weight=10)
    + lr(5e-4, steps=260, layer=2, steering=6.5, retain_weight=30, text_weight=3)
    + lr(5e-4, steps=260, layer=3, steering=6.5, retain_weight=10, text_weight=3),
    "rmu_split": lr(3e-4, 1e-3, layer=2, steering=6.5, retain_weight=10)
    + lr(1e-3, steps=260, layer=2, steering=6.5, retain_weight=10, text_weight=3),
    "circuit_breakers": lr(3e-4, 6e-4, 1e-3) + lr(2e-3, steps=260, retain_weight=1),
    "mlp_breaking": lr(2e-4, **KL, blocks=(0.0, 1.0), forget_weight=10)
    + lr(5e-4, steps=260, **FIRM, blocks=(0.0, 1.0), forget_weight=100),
    "norm_breaking": lr(2e-4, **KL, blocks=(2, 5), forget_weight=10),
    "cosine_breaking": lr(2e-4, **KL, blocks=(2, 5), forget_weight=10)
    + lr(5e-4, steps=260, **FIRM, blocks=(2, 5), forget_weight=100),
    "cir": [
        Trial({"objective": "npo", "activations": 16, "gradients": 16, "step_norm": 0.05, **CIR_KL}),
        Trial({"objective": "npo", "activations": 0, "gradients": 0, "step_norm": 0.05, **CIR_KL}),
        Trial({"step_norm": 0.05}),
        Trial(
            CIR_KL | {"objective": "npo", "activations": 8, "gradients": 8, "step_norm": 0.3},
            {"batch_size": 32, "steps": 120},
        ),
        Trial(
            CIR_KL | {"objective": "npo", "activations": 8, "gradients": 8, "step_norm": 0.3},
            {"batch_size": 32, "steps": 320},
        ),
    ],
    "repselect": [
        Trial({"step_norm": 0.05, **CIR_KL}),
        Trial(CIR_KL | {"step_norm": 0.15}, {"batch_size": 32, "steps": 240}),
    ],
    "layered_npo_kl": [
        Trial(KL | {"text_weight": 10}, {"learning_rate": 1e-4, "steps": 60}, {"folds": 4, "decay": 0.5}),
        Trial(FIRM, {"learning_rate": 1.5e-4, "steps": 100}, {"folds": 4, "stage_stop": 0.05}),
    ],
    "norm_limited_circuit_breakers": [Trial({"step_norm": 0.05, **CIR_KL})],
}


CROSS_ENTROPY = (
    "cross-entropy on retained text moves the model by itself (α = 10, τ = 3: KL 0.01 with nothing forgotten) and "
    "spends the budget; the KL form reaches what was asked"
)
BREAKS = "the budget is spent on general text before the answers move, at every weight and rate searched"
STEERS = "what moves the residual stream on forget facts moves it on general text as well; the budget ends it"
WHY: dict[str, str] = {
    "gradient_ascent": "nothing holds near facts, which fall below 90 % first",
    "gradient_ascent_kl": "one seed spends the budget at 7 %",
    "gradient_difference": CROSS_ENTROPY,
    "npo": CROSS_ENTROPY,
    "idk": "ends at 5 % in the one phrasing that is watched; in both it is 5 to 7 %",
    "wga": "close, with budget left; p in its weight slows it down where little is left to forget",
    "simnpo": "lets go of a fact once its mean NLL is about 1/β, where greedy recall still finds some",
    "dpo": "close, with budget left; lets go of a fact once the distractor is preferred",
    "idk_dpo": "is content when refusals have become likelier, which need not make the answer less likely",
    "undial": "its target keeps the order of all other answers; slow",
    "rmu": STEERS,
    "rmu_split": STEERS,
    "repselect": "by seed 4 to 20 %: the budget, or the steps, end it",
    "cir": "the same, and slower: it takes away few directions whole, soft collapse weighs down many",
    "mlp_breaking": BREAKS,
    "norm_breaking": f"{BREAKS}; norms divide the length of the residual stream out again",
    "cosine_breaking": "its loss falls with little change of the answers, at every weight and rate searched",
    "norm_limited_circuit_breakers": BREAKS,
    "circuit_breakers": "its retain term, a norm with a kink at the start, holds it there; in some seeds it leaps",
    "layered_npo_kl": "stages that hold the waiting folds spend the budget before the last folds are forgotten",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="run what was searched, one seed each")
    parser.add_argument("--only", default="", help="names of methods, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worker", default="1/1", help="do every n-th run only, like 1/2 and 2/2 in two processes")
    parser.add_argument("--out", type=Path, default=Path("runs/tune-methods"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Rows that the repository holds are not run again.
    held = pd.read_parquet(RESULTS / "methods.parquet") if (RESULTS / "methods.parquet").exists() else pd.DataFrame()
    finished = set(held[KEYS].itertuples(index=False, name=None)) if len(held) else set()
    folder = RunFolder(options.out, "study", {"common": json.loads(json.dumps(COMMON, default=str))})
    first, workers = (int(part) for part in options.worker.split("/"))
    names = options.only.split(",") if options.only else list(SEARCHED if options.search else CHOSEN)
    for place, (name, trial, seed) in enumerate(jobs(names, options.search, options.seeds)):
        unit = f"{'search-' if options.search else ''}{name}-{hash_of(trial):x}-{seed}"
        known = (name, str(trial), seed, options.search) in finished
        if place % workers == first - 1 and folder.unit(unit) is None and not known:
            row = attempt(name, trial, seed)
            folder.finish_unit(unit, pd.DataFrame([row]))
            print(json.dumps(row), flush=True)
    if workers == 1:
        files = sorted((options.out / "units").glob("*.parquet"))
        kept = [pd.read_parquet(file).assign(searched=file.name.startswith("search-")) for file in files]
        write_page(pd.concat([held, *kept], ignore_index=True).drop_duplicates(KEYS, keep="last", ignore_index=True))


def jobs(names: list[str], search: bool, seeds: int) -> Iterator[tuple[str, Trial, int]]:
    """Every run in its order: method, settings, seed."""
    if search:
        yield from ((name, trial, 0) for name in names for trial in SEARCHED[name])
    else:  # all methods once before any again
        layers_last = sorted(names, key=lambda name: name.startswith("layered"))
        yield from ((name, CHOSEN[name], seed) for seed in range(seeds) for name in layers_last)


def attempt(name: str, trial: Trial, seed: int) -> dict[str, Any]:
    """One run, and what it came to."""
    before, facts = mu.load("organism"), mu.Facts.builtin("organism")
    general, domain = apart(mu.organism_text(), facts)
    run = unlearn(name, trial, seed)
    last = kept_row(run.frame, run.about)
    measures = ("recall", "answer_probability", "text_kl")
    measured = evaluate(run.model, facts, text=general, before=before, measures=measures)
    found = measured.summary().set_index(["role", "measure"])["value"]
    return {
        "method": name,
        "settings": str(trial),
        "seed": seed,
        **{f"{role}_recall": found[role, "recall"] for role in ("forget", "near", "far")},
        "forget_probability": found["forget", "answer_probability"],
        "text_kl": found["text", "text_kl"],
        "domain_text_kl": text_kl(run.model, before, domain),
        "step": int(last["step"]),
        "tokens": int(last["tokens"]),
        "seconds": float(run.frame["seconds"].iloc[-1]),
        "stopped": run.about["stopped"],
    }


def write_page(runs: pd.DataFrame) -> None:
    """The tables and the picture of all finished runs; the chosen settings' are told apart from what was searched."""
    pairs = zip(runs["method"], runs["settings"], runs["searched"], strict=True)
    chosen = [not searched and str(CHOSEN.get(name)) == settings for name, settings, searched in pairs]
    runs = runs.assign(chosen=chosen)
    runs.to_parquet(RESULTS / "methods.parquet", index=False)
    methods_page.write(runs, WHY, RESULTS)


def hash_of(trial: Trial) -> int:
    """The same for the same settings, in every process."""
    return int.from_bytes(hashlib.sha256(str(trial).encode()).digest()[:5])


if __name__ == "__main__":
    main()
