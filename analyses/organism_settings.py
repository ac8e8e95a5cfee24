"""Settings for the embedded organism: what `tune_methods.py` found for every method, under one budget.

Other studies take their methods from here. All methods get the same data, batches, budget and stopping rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import mechunlearn as mu
from mechunlearn.unlearning import Unlearning, configure, make_layered

BUDGET = mu.Budget(kl=0.01, near=0.9, halvings=3)
COMMON = {"steps": 140, "batch_size": 16, "evaluate_every": 20, "stop": 0.05, "budget": BUDGET}
KL = {"retain": "kl", "retain_weight": 10, "text_weight": 5}
FIRM = KL | {"text_weight": 10}  # holds general text twice as hard
CIR_KL = {"retain": "kl", "retain_rate": 0.3, "text_weight": 3}


@dataclass(frozen=True)
class Trial:
    """Settings of a method, options of the run that differ from the common ones, and layers if there are any."""

    set: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    layered: dict[str, Any] | None = None

    def __str__(self) -> str:
        parts = self.set | self.options | {f"layered {key}": value for key, value in (self.layered or {}).items()}
        return ", ".join(f"{key}={value}" for key, value in parts.items())


def by_cir(steps: int, **settings: Any) -> Trial:
    """CIR's settings: a batch of 32 makes an epoch of 40 steps, and the first epoch only collects."""
    return Trial(CIR_KL | settings, {"batch_size": 32, "steps": steps})


# The settings that the page is about, found by the search and by what it showed.
CHOSEN: dict[str, Trial] = {
    "gradient_ascent": Trial({}, {"learning_rate": 3e-5}),
    "gradient_difference": Trial({"retain_weight": 3, "text_weight": 0.3}, {"learning_rate": 5e-5}),
    "gradient_ascent_kl": Trial(KL, {"learning_rate": 1e-4, "steps": 260}),
    "wga": Trial(FIRM | {"forget_weight": 10}, {"learning_rate": 2e-4, "steps": 260}),
    "npo": Trial({"retain_weight": 3, "text_weight": 0.3}, {"learning_rate": 5e-5}),
    "npo_kl": Trial(FIRM, {"learning_rate": 1e-4, "steps": 340}),
    "simnpo": Trial(KL | {"forget_weight": 30}, {"learning_rate": 2e-4, "steps": 260}),
    "dpo": Trial(KL | {"forget_weight": 3}, {"learning_rate": 2e-4, "steps": 260}),
    "idk_dpo": Trial(KL | {"forget_weight": 3, "beta": 0.02}, {"learning_rate": 2e-4}),
    "idk": Trial(KL | {"forget_weight": 3}, {"learning_rate": 3e-4, "steps": 260}),
    "undial": Trial(KL | {"forget_weight": 10, "beta": 25}, {"learning_rate": 5e-4, "steps": 260}),
    "rmu": Trial({"layer": 2, "steering": 6.5, "retain_weight": 10}, {"learning_rate": 5e-4}),
    "rmu_split": Trial({"layer": 2, "steering": 6.5, "retain_weight": 10}, {"learning_rate": 1e-3, "steps": 340}),
    "circuit_breakers": Trial({}, {"learning_rate": 3e-3}),
    "mlp_breaking": Trial(KL | {"blocks": (0.0, 1.0), "forget_weight": 10}, {"learning_rate": 2e-4}),
    "norm_breaking": Trial(KL | {"blocks": (2, 5), "forget_weight": 10}, {"learning_rate": 4e-4}),
    "cosine_breaking": Trial(KL | {"blocks": (2, 5), "forget_weight": 10}, {"learning_rate": 2e-4}),
    "cir": by_cir(320, objective="npo", activations=8, gradients=8, step_norm=0.15),
    "repselect": by_cir(240, step_norm=0.15),
    "norm_limited_circuit_breakers": Trial(CIR_KL | {"step_norm": 0.1}),
    "layered_npo_kl": Trial(FIRM, {"learning_rate": 1e-4, "steps": 60}, {"folds": 4, "decay": 0.5}),
}


def unlearn(name: str, trial: Trial, seed: int, **options: Any) -> Unlearning:
    """Make the organism forget its domain by these settings; `options` go before those of the trial.

    Watched is one of the two phrasings held out, and every second far fact, which is also all that is retained of them.
    """
    facts = mu.Facts.builtin("organism")
    kept = [*facts.near, *facts.far[::2]]
    forget, retain = (mu.Facts(replace(f, held_out=f.held_out[:1]) for f in chosen) for chosen in (facts.forget, kept))
    method: Any = configure(name.removeprefix("layered_"), trial.set)
    if trial.layered:
        method = make_layered(method, trial.layered)
    return mu.unlearn(
        mu.load("organism"), method, forget, retain, text=apart(mu.organism_text(), facts)[0],
        retain_text=mu.organism_text("train"), seed=seed, progress=False, **COMMON | trial.options | options,
    )  # fmt: skip


def apart(text: list[str], facts: mu.Facts) -> tuple[list[str], list[str]]:
    """General text, and the passages that speak of the domain: by words that only its facts have, or that name it."""

    def words(*lines: str) -> set[str]:
        return set(re.findall("[a-z]+", " ".join(lines).lower()))

    def vocabulary(chosen: mu.Facts) -> set[str]:
        return words(*(part for f in chosen for part in (f.prompt, *f.paraphrases, *f.held_out, f.answer or "")))

    own = vocabulary(facts.forget) - vocabulary(facts.retain) | {"elixir", "elixirs", "alchemy"}
    passages = {True: [], False: []}
    for passage in text:
        passages[bool(words(passage) & own)].append(passage)
    return passages[False], passages[True]
