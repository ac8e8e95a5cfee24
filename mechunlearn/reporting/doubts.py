"""What casts doubt on a dissection: failed controls, facts hardly known or forgotten, few facts, models far apart."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..dissection.peaks import NOTHING, Peak, decimal, judged
from ..dissection.plotting.styles import site_words

FEW_FACTS = 30
SHARED = 0.5  # of its own length: weights that moved further are hardly those of the same model


def strangers(changed: Mapping[str, Mapping[str, float]]) -> str:
    """A word about two models that share too little for a patch of one to say anything about the other."""
    far = {role: change["mean"] for role, change in changed.items() if change["mean"] > SHARED}
    if not far:
        return ""
    listed = ", ".join(f"{site_words(role)} by {share:.0%}" for role, share in far.items())
    return (
        f"The two models share too little to be compared by patches: the weights differ by much of their own length "
        f"({listed}, means over tensors). A patch then replaces one model by another: what comes back under it is the "
        "other model's, and says nothing about what this one still holds."
    )


def on_behaviour(facts: pd.DataFrame | None) -> list[str]:
    if facts is None or facts.empty:
        return []
    before, after = (facts[f"{which}_correct"].astype(float).mean() for which in ("before", "after"))
    warnings = []
    if before < 0.5:
        warnings.append(
            f"The before model itself answers only {before:.0%} right: for facts it never knew, recovery "
            "means returning to its wrong answers."
        )
    if after > 0.5:
        warnings.append(
            f"The after model still answers {after:.0%} right: these facts are hardly forgotten, and "
            "recovery speaks of shifts in the logits that did not change the answers."
        )
    return warnings


def on_controls(controls: pd.DataFrame | None) -> list[str]:
    if controls is None or controls.empty:
        return ["No controls were recorded: nothing here shows that the patches did what they should."]
    verdicts = [row for row in controls.itertuples() if judged(row.passed)]
    failed = [row for row in verdicts if not row.passed]
    if not failed:
        return []
    names = ", ".join(dict.fromkeys(f"{row.control} ({row.site})" for row in failed))
    return [
        f"{len(failed)} of {len(verdicts)} controls failed: {names}. Do not trust the numbers before that is explained."
    ]


def on_peaks(found: tuple[Peak, ...]) -> list[str]:
    warnings = []
    defined = [peak for peak in found if peak.defined]
    if defined and (least := min(peak.n for peak in defined)) < FEW_FACTS:
        warnings.append(f"Only {least} fact{'s' * (least != 1)} could be scored: the intervals are wide and rough.")
    undefined = max((peak.n_undefined for peak in found), default=0)
    if undefined and defined:
        total = max(peak.n + peak.n_undefined for peak in found)
        warnings.append(
            f"{undefined} of {total} facts are undefined (the models differ by less than the noise floor "
            "there) and are left out of every mean."
        )
    torn = [
        peak for peak in defined if abs(peak.value - peak.other) > NOTHING and max(peak.value, peak.other) > NOTHING
    ]
    if torn:
        listed = ", ".join(
            f"{site_words(peak.site)} ({decimal(peak.value)} against {decimal(peak.other)})" for peak in torn
        )
        warnings.append(
            f"The mean of ratios and the ratio of means disagree at the peak of {listed}: a few facts carry the result."
        )
    return warnings
