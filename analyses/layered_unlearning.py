"""Layered Unlearning (arXiv 2505.09500) in a language model: does it hold under relearning, and what do its stages do?

    python analyses/layered_unlearning.py [--quick] [--seeds 3] [--workers 2] [--page]

NPO, RMU, gradient difference and CIR, plain and in 2, 3 and 4 layers over the folds of the organism's domain, and the
controls that the paper lacks: as many stages of the plain method, no retained folds, the reverse order, the twin that
never knew. Then every fold is relearned and every other asked; each stage's change is taken out again, site by site
(the restoration matrix); and the attacked plain and layered models are patched into each other.
Writes analyses/results/layered_unlearning.md with its pictures and frames.
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import layered_unlearning_page
import pandas as pd
import torch
from organism_settings import CHOSEN, KL, Trial, apart, by_cir, unlearn
from studies import Tables, study

import mechunlearn as mu
from mechunlearn.evaluation import evaluate
from mechunlearn.models import Slot
from mechunlearn.sites import resolve

STEM = "layered_unlearning"
# Not how little it costs but what it withstands is asked here: a wider budget, in which all arms can forget.
BUDGET = mu.Budget(kl=0.05, near=0.9, halvings=3)
COMMON = {"budget": BUDGET, "stop": 0.05, "evaluate_every": 20, "steps": 100}
METHODS: dict[str, tuple[str, Trial]] = {
    "npo": ("npo_kl", Trial(KL, {"learning_rate": 2e-4})),
    "rmu": ("rmu", Trial(CHOSEN["rmu"].set, {"learning_rate": 1e-3})),
    "gradient_difference": ("gradient_ascent_kl", Trial(KL, {"learning_rate": 2e-4})),
    "cir": ("repselect", by_cir(160, step_norm=0.15)),
}
LAYERED = {"stage_stop": 0.05}
ARMS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "layered 4": LAYERED | {"folds": 4},
    "plain, 4 stages": {"folds": 1, "repeat": 4},
    "layered 2": LAYERED | {"folds": 2},
    "layered 3": LAYERED | {"folds": 3},
    "layered 4, no fold retained": LAYERED | {"folds": 4, "retain": 0.0},
    "layered 4, reversed": LAYERED | {"folds": 4, "order": (4, 3, 2, 1)},
}
ARM_NAMES = tuple(ARMS)
# As many steps as layers take: it does not end when it has forgotten.
ENDLESS = {"plain, 4 stages": {"stop": None}}
RELEARN = (mu.Relearn(batch_size=32, subsets="one"), mu.Relearn(batch_size=32))
SITES = ("everything", "mlp_keys", "value_vectors", "attention")
TWO_WAY = ("mlp_coefficients", "attention_output", "mlp_coefficients+attention_output", "residual", "block")
QUICK = ["twin+none+0", "npo+layered 2+0"]


def jobs(seeds: int) -> list[str]:
    """Method + arm + seed, the most telling first."""
    first = [f"{name}+{arm}+{{}}" for arm in ARM_NAMES[:2] for name in METHODS]
    second = [f"npo+{arm}+{{}}" for arm in ARM_NAMES[2:]]
    others = [name for name in reversed(METHODS) if name != "npo"]
    third = [f"{name}+{ARM_NAMES[2]}+{{}}" for name in others]
    fourth = [f"{name}+{arm}+0" for arm in ARM_NAMES[3:5] for name in others]  # one seed, for the time they take
    groups = (["twin+none+{}", *first], second, third)
    return [*(kind.format(seed) for group in groups for seed in range(seeds) for kind in group), *fourth]


def do_quickly(job: str, folder: Path) -> Tables:
    return do(job, folder, {"steps": 10, "evaluate_every": 10}, attacks=[mu.Relearn(subsets="one", epochs=1)], step=16)


def do(
    job: str,
    folder: Path,
    options: dict[str, Any] | None = None,
    attacks: Sequence[mu.Relearn] = RELEARN,
    step: int = 1,
) -> Tables:
    """One model: made, measured, relearned fold by fold, its stages taken out; a layered one patched with its plain."""
    name, arm, last = job.split("+")
    seed = int(last)
    facts = mu.Facts.builtin("organism")
    facts = facts.with_items([*facts.forget[::step], *facts.near])
    label = {"method": name, "arm": arm, "seed": seed}
    stages: Sequence[Any] = ()
    about: dict[str, Any] = {"steps": 0, "stopped": "", "seconds": 0.0}
    if name == "twin":
        after = mu.load("organism:never-knew")
    else:
        run = _made(name, arm, seed, folder, options or {})
        after, stages = run.model, run.stages
        about = {"steps": run.about["step"], "stopped": run.about["stopped"], "seconds": run.frame["seconds"].iloc[-1]}
    tables = {
        "runs": pd.DataFrame([about | _measured(after, facts) | label]),
        "matrix": _matrix(after, facts, attacks, seed, folder).assign(**label),
    }
    if len(stages) > 1:
        tables["restored"] = _taken_out(stages, facts).assign(**label)
    if arm == "layered 4":
        plain = _made(name, "plain", seed, folder.parent / f"{name}+plain+{seed}", options or {}).model
        tables["two_way"] = _two_way(plain, after, facts, seed, attacks[0]).assign(**label)
    return tables


def _made(name: str, arm: str, seed: int, folder: Path, options: dict[str, Any]) -> Any:
    """The run of this arm: opened where it is finished."""
    method, trial = METHODS[name]
    layered = ARMS[arm]
    settings = COMMON | trial.options | ENDLESS.get(arm, {}) | {"run": folder} | options
    return unlearn(method, replace(trial, layered=layered), seed, **settings)


def _measured(model: Any, facts: mu.Facts) -> dict[str, float]:
    """Recall by fold and of near facts, and the divergence of general text."""
    measures = ("recall", "answer_probability", "text_kl")
    general, _ = apart(mu.organism_text(), mu.Facts.builtin("organism"))
    found = evaluate(model, facts, text=general, before="organism", measures=measures).summary()
    return {f"{row['role']}_{row['measure']}": float(row["value"]) for _, row in found.iterrows()}


def _matrix(model: Any, facts: mu.Facts, attacks: Sequence[mu.Relearn], seed: int, folder: Path) -> pd.DataFrame:
    """Recall of each fold after relearning others, `trained, fold, start, worst, last, n`: a cell's own worst epoch."""
    found = mu.attack(model, facts, suite=attacks, seed=seed, run=folder / "attacks", progress=False).frame
    found = found[(found["role"] == "forget") & (found["model"] == "after")]
    plain = found[found["attack"] == "none"].groupby("fold")["correct"].mean()
    rows = []
    for (part, fold), cell in found[found["attack"] == "relearn"].groupby(["part", "fold"]):
        by_epoch = cell.groupby("step")["correct"].mean()
        last = by_epoch.iloc[-1]
        start = plain.loc[fold]  # pyright: ignore[reportCallIssue, reportArgumentType]
        rows.append({"trained": part, "fold": fold, "start": start, "worst": by_epoch.max(), "last": last})
    return pd.DataFrame(rows)


@torch.no_grad()
def _taken_out(stages: Sequence[Any], facts: mu.Facts) -> pd.DataFrame:
    """The restoration matrix: recall and answer probability of every fold without the change of one stage at a site.

    θ_k − (θ_i − θ_{i−1}) at the site's parameters: `stage, site, fold, recall, probability`; stage 0 is θ_k as it is.
    """
    models = [mu.load("organism"), *(stage if not isinstance(stage, Path) else mu.load(stage) for stage in stages)]
    last = models[-1]
    rows = [_by_fold(last, facts).assign(stage=0, site="")]
    for number, (old, new) in enumerate(pairwise(models), start=1):
        for site in SITES:
            chosen = [resolve(site, model).slots for model in (last, old, new)]
            with _without_change(*chosen):
                rows.append(_by_fold(last, facts).assign(stage=number, site=site))
    return pd.concat(rows, ignore_index=True)


@contextmanager
def _without_change(target: Sequence[Slot], old: Sequence[Slot], new: Sequence[Slot]) -> Iterator[None]:
    kept = [slot.tensor.clone() for slot in target]
    try:
        for slot, a, b in zip(target, old, new, strict=True):
            slot.tensor.sub_(b.tensor - a.tensor)
        yield
    finally:
        for slot, value in zip(target, kept, strict=True):
            slot.tensor.copy_(value)


def _by_fold(model: Any, facts: mu.Facts) -> pd.DataFrame:
    found = evaluate(model, facts.forget, measures=("recall", "answer_probability")).summary(by=("fold",))
    wide = found.pivot(index="fold", columns="measure", values="value").reset_index()
    return wide.rename(columns={"answer_probability": "probability"})


def _two_way(plain: Any, layered: Any, facts: mu.Facts, seed: int, attack: mu.Relearn) -> pd.DataFrame:
    """Both models relearned on the last fold (the one that is forgotten last), then patched into each other on fold 0.

    Recovery in the answer's log-probability: 1 = as the relearned plain model, 0 = as the relearned layered one.
    """
    train, test = facts.forget.where(fold=3), facts.forget.where(fold=0).questions()
    attacked = []
    for model in (plain, layered):
        *_, (_, state) = attack.learn(model, train, seed)  # one model that changes: only its last state is there
        attacked.append(state)
    found = mu.dissect(attacked[0], attacked[1], test, sites=TWO_WAY, windows="all,single", seed=seed, progress=False)
    means = {
        which: evaluate(state, test, measures=["recall"]).summary()["value"].iloc[0]
        for which, state in zip(("plain", "layered"), attacked, strict=True)
    }
    table = found.summary().query("metric == 'answer_logprob'")
    return table.assign(recall_plain=means["plain"], recall_layered=means["layered"])


if __name__ == "__main__":
    study(STEM, __doc__, jobs, do, (QUICK, do_quickly), layered_unlearning_page)
