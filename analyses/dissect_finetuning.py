"""Where does fine-tuning unlearning act (arXiv 2410.06606), and is what patching restores also what relearning moves?

    python analyses/dissect_finetuning.py [--quick] [--seeds 3] [--workers 2] [--page]

Gradient difference, NPO, DPO and RMU unlearn the organism's domain. Every model is dissected at the paper's four arms
and at the parameter sites that the paper lacks, with all-layer controls; measured on what it was to forget, what is
near and far, and general text, as training goes on; and relearned on three of four folds, layer by layer looked at.
Writes analyses/results/dissect_finetuning.md with its pictures and frames.
"""  # fmt: skip

from __future__ import annotations

from pathlib import Path
from typing import Any

import dissect_finetuning_page
import pandas as pd
from organism_settings import CHOSEN, apart
from studies import Tables, study

import mechunlearn as mu
from mechunlearn.evaluation import evaluate
from mechunlearn.models import compare
from mechunlearn.unlearning import configure

STEM = "dissect_finetuning"
# As published, without a budget: the paper's models have forgotten, whatever it cost. RMU with the organism's layer.
METHODS: dict[str, tuple[Any, float]] = {
    "gradient_difference": (mu.GradientDifference(), 4e-4),
    "npo": (mu.NPO(), 4e-4),
    "dpo": (mu.DPO(), 4e-4),
    "rmu": (configure("rmu", CHOSEN["rmu"].set), 1e-3),
}
SITES = (
    "mlp_coefficients", "attention_output", "mlp_coefficients+attention_output", "value_vectors", "mlp_keys",
    "attention_qk", "attention_ov", "block", "embedding", "unembedding",
)  # fmt: skip
WINDOWS = "sliding:5,single,all"
STEPS, EVERY = 100, 25
MEASURES = ("recall", "answer_probability", "rank", "extraction_strength", "rouge_l", "bleu", "text_loss", "text_kl")
RELEARN = mu.Relearn(batch_size=32, epochs=4)
TWIN = "never_knew"
QUICK = ["npo-0", "rmu-0", "never_knew-0"]


def jobs(seeds: int) -> list[str]:
    return [f"{name}-{seed}" for seed in range(seeds) for name in (*METHODS, TWIN)]


def do_quickly(job: str, folder: Path) -> Tables:
    return do(job, folder, steps=4, step=20)


def do(job: str, folder: Path, steps: int = STEPS, step: int = 2) -> Tables:
    """One model: unlearned, measured, dissected on every `step`-th forget fact, relearned."""
    name, last = job.split("-")
    seed = int(last)
    before, facts = mu.load("organism"), mu.Facts.builtin("organism")
    label = {"method": name, "seed": seed}
    if name == TWIN:  # the anchor of relearning
        return {"relearning": _relearned(mu.load("organism:never-knew"), facts, seed, step).assign(**label)}
    method, rate = METHODS[name]
    general, _ = apart(mu.organism_text(), facts)
    run = mu.unlearn(
        before, method, facts.forget, facts.retain, text=general, retain_text=mu.organism_text("train"),
        steps=steps, learning_rate=rate, evaluate_every=EVERY, seed=seed, run=folder, progress=False,
    )  # fmt: skip
    result = mu.dissect(
        before,
        run.model,
        facts.forget[::step],
        sites=SITES,
        windows=WINDOWS,
        prompts="own",
        seed=seed,
        run=folder / "dissection",
        progress=False,
    )
    few = facts.with_items([*facts.forget[::8], *facts.near[::8], *facts.far[::16]])
    behaviour = evaluate(run.model, few, text=general, before=before, letters=False, measures=MEASURES).summary()
    return {
        "training": run.frame.assign(**label),
        "recovery": result.summary().assign(**label),
        "controls": result.controls.assign(**label),
        "behaviour": behaviour.assign(**label),
        "relearning": _relearned(run.model, facts, seed, step).assign(**label),
    }


def _relearned(after: Any, facts: mu.Facts, seed: int, step: int) -> pd.DataFrame:
    """How far relearning on folds 0 to 2 moves each layer's weights, and what of fold 3 it brings back.

    One row a layer and role: `layer, role, relative_change` (Frobenius, to the weights after unlearning),
    `recall_start` and `recall_end` on fold 3.
    """
    train, test = facts.forget.where(fold=[0, 1, 2])[::step], facts.forget.where(fold=3)[::step].questions()
    recalls = []
    relearned = after
    for _, state in RELEARN.learn(after, train, seed):
        relearned = state
        recalls.append(evaluate(state, test, measures=["recall"]).summary()["value"].iloc[0])
    moved = compare(after, relearned).frame
    moved["square"] = moved["relative_change"] ** 2
    by_layer = moved.groupby(["layer", "role"], as_index=False)["square"].mean()
    by_layer["relative_change"] = by_layer.pop("square") ** 0.5
    return by_layer.assign(recall_start=recalls[0], recall_end=recalls[-1])


if __name__ == "__main__":
    study(STEM, __doc__, jobs, do, (QUICK, do_quickly), dissect_finetuning_page)
