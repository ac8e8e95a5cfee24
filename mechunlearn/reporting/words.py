"""What a dissection says, in sentences that claim no more than its summary shows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

NOTHING, PART, MUCH, NEARLY_ALL = 0.1, 0.3, 0.6, 0.85  # shares of the way from after back to before
FEW_FACTS = 30
# States and parameters that can be part of a cause. The residual stream carries everything a model has
# computed
# and whole blocks hold every weight of a layer: that these restore the answer says little.
STATES = ("mlp_coefficients+attention_output", "mlp_coefficients", "attention_output")
WHOLE = ("everything", "block", "residual")
LIMITS = (
    "A patched state already holds everything the donor computed upstream. Its recovery shows where the "
    "answer "
    "can be put back in, not which weights changed, nor that the recipient could still compute it by itself.",
    "Restored parameters run on the recipient's own activations, which may be far from what they were "
    "trained "
    "on. The curves of states and of parameters answer different questions and are not to be ranked against "
    "each other.",
    "Weights that would undo the change are not unique: a site that restores the answer is a sufficient "
    "place "
    "to intervene, not the only one, and not proof that the knowledge is stored there.",
    "The answer is read by feeding the expected answer itself (teacher forcing), so every model sees its "
    "beginning; behaviour when the model writes freely may differ.",
    "The peak is the best of many windows, chosen on the same facts as its interval: read it as an upper "
    "estimate.",
    "Intervals resample facts. They say nothing about other random seeds, other prompts or other models.",
    "Whether knowledge can be brought back by training or by prompts is not measured here: no recovery by "
    "patching is no proof of erasure, and recovery by patching is no attack.",
)


@dataclass(frozen=True)
class Peak:
    """The window in which one site recovers most, and what the site recovers over all layers at once."""

    site: str
    kind: str
    first_layer: int
    last_layer: int
    value: float
    low: float
    high: float
    lowest: float  # over the site's windows
    all_layers: float | None
    single: float | None  # the best single layer
    single_layer: int | None
    other: float  # the ratio of means where `value` is the mean of ratios
    n: int
    n_undefined: int

    @property
    def where(self) -> str:
        if self.first_layer < 0:
            return "no layers"
        if self.first_layer == self.last_layer:
            return f"layer {self.first_layer}"
        return f"layers {self.first_layer}–{self.last_layer}"

    @property
    def defined(self) -> bool:
        return self.n > 0


@dataclass(frozen=True)
class Words:
    """The verdict on one direction of a dissection: a headline, its evidence, and what casts doubt on it."""

    headline: str
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]
    peaks: tuple[Peak, ...]

    @classmethod
    def of(
        cls,
        summary: pd.DataFrame,
        *,
        controls: pd.DataFrame | None = None,
        facts: pd.DataFrame | None = None,
        metric: str = "mse",
    ) -> Words:
        """Judge the direction before->after where `summary` has it, else the only other one."""
        rows = summary[(summary["metric"] == metric) & summary["position"].isna()]
        direction = "before->after"
        if not (rows["direction"] == direction).any():
            direction = "after->before"
        found = peaks(rows[rows["direction"] == direction])
        verdict = _headline if direction == "before->after" else _headline_reversed
        return cls(
            headline=verdict(found),
            evidence=(*_behaviour(facts), *_evidence(found, direction)),
            warnings=(*_control_warnings(controls), *_behaviour_warnings(facts), *_warnings(found)),
            peaks=found,
        )


def peaks(rows: pd.DataFrame) -> tuple[Peak, ...]:
    """The peak of every site among the rows of one metric and direction, in the rows' order of sites.

    The peak is sought over windows that leave some layer out, where the site has such: all layers at once
    say whether, not where.
    """
    last = int(rows["last_layer"].max()) if len(rows) else -1
    result = []
    for site, windows in rows.groupby("site", sort=False, observed=True):
        everywhere = (windows["first_layer"] == 0) & (windows["last_layer"] == last)
        parts = windows[~everywhere] if (~everywhere).any() else windows
        defined = parts[parts["mean_of_ratios"].notna()]
        best = defined.loc[defined["mean_of_ratios"].idxmax()] if len(defined) else parts.iloc[0]
        one = windows[(windows["first_layer"] >= 0) & (windows["first_layer"] == windows["last_layer"])]
        one = one[one["mean_of_ratios"].notna()]
        single = one.loc[one["mean_of_ratios"].idxmax()] if len(one) else None
        result.append(
            Peak(
                site=str(site),
                kind=str(best["kind"]),
                first_layer=int(best["first_layer"]),
                last_layer=int(best["last_layer"]),
                value=float(best["mean_of_ratios"]),
                low=float(best["mean_low"]),
                high=float(best["mean_high"]),
                lowest=float(windows["mean_of_ratios"].min()),
                all_layers=float(windows.loc[everywhere, "mean_of_ratios"].iloc[0])
                if everywhere.any()
                else None,
                single=None if single is None else float(single["mean_of_ratios"]),
                single_layer=None if single is None else int(single["first_layer"]),
                other=float(best["ratio_of_means"]),
                n=int(best["n"]),
                n_undefined=int(best["n_undefined"]),
            )
        )
    return tuple(result)


def amount(value: float) -> str:
    """A recovery in words."""
    if value >= NEARLY_ALL:
        return "nearly everything"
    if value >= MUCH:
        return "much"
    if value >= PART:
        return "a part"
    return "little" if value >= NOTHING else "next to nothing"


def name(site: str) -> str:
    """A site as it reads in a sentence."""
    known = {"mlp_coefficients+attention_output": "MLP coefficients with attention output"}
    return known.get(
        site, site.replace("_", " ").replace("mlp", "MLP").replace(" qk", " QK").replace(" ov", " OV")
    )


def _headline(found: tuple[Peak, ...]) -> str:
    defined = [peak for peak in found if peak.defined]
    if not defined:
        return (
            "Undefined: on these facts the two models differ by less than the noise floor, so there is "
            "nothing "
            "to recover."
        )
    states = [peak for peak in defined if peak.kind == "activation" and peak.site not in WHOLE]
    named = [peak for peak in states if peak.site in STATES]
    parameters = [peak for peak in defined if peak.kind == "parameters" and peak.site not in WHOLE]
    sentences = [_on_states(named or states), *_on_parameters(parameters, found)]
    return " ".join(filter(None, sentences)) or (
        f"Only {', '.join(name(peak.site) for peak in defined)} was tried, which holds too much to point "
        "anywhere."
    )


def _on_states(states: list[Peak]) -> str:
    if not states:
        return ""
    best = max(states, key=lambda peak: peak.value)
    if best.value < PART:
        return (
            f"No patched state brings back more than {amount(best.value)} in any window (at most "
            f"{best.value:.2f})."
        )
    return (
        f"The answer can be put back: {amount(best.value)} of it returns ({best.value:.2f}) when the after "
        "model is "
        f"given the before model's {name(best.site)} in {best.where}."
    )


def _on_parameters(parameters: list[Peak], found: tuple[Peak, ...]) -> list[str]:
    sentences = []
    values = next((peak for peak in parameters if peak.site == "value_vectors"), None)
    coefficients = next((peak for peak in found if peak.site == "mlp_coefficients" and peak.defined), None)
    if values is not None and _is_flat(values):
        text = "Restoring the value vectors brings back next to nothing in any window"
        if coefficients is not None and coefficients.value >= MUCH:
            text += (
                ", while the after model's own value vectors still turn the before model's coefficients "
                "into the answer: "
                "what they store was left in place, and what changed is which of it is called up"
            )
        sentences.append(text + ".")
    best = max(parameters, key=lambda peak: peak.value, default=None)
    if best is not None and best.value >= PART:
        sentences.append(
            f"Among parameters, restoring {name(best.site)}{_in(best)} alone undoes {amount(best.value)} "
            f"of the change ({best.value:.2f})."
        )
    elif best is not None and (len(parameters) > 1 or not sentences):
        sentences.append(
            f"No group of parameters tried undoes more than {amount(best.value)} of the change by itself "
            f"(at most {best.value:.2f}"
            f", {name(best.site)})."
        )
    return sentences


def _in(peak: Peak) -> str:
    return "" if peak.first_layer < 0 else f" in {peak.where}"


def _headline_reversed(found: tuple[Peak, ...]) -> str:
    defined = [peak for peak in found if peak.defined]
    if not defined:
        return _headline(found)
    best = max(defined, key=lambda peak: peak.value)
    return (
        f"The damage can be carried over: given the after model's {name(best.site)}{_in(best)}, the before "
        f"model takes on {amount(best.value)} of the change ({best.value:.2f})."
    )


def _is_flat(peak: Peak) -> bool:
    return abs(peak.value) <= NOTHING and abs(peak.lowest) <= NOTHING


def _evidence(found: tuple[Peak, ...], direction: str) -> list[str]:
    donor, recipient = direction.split("->")
    sentences = []
    for peak in found:
        what = "restoring" if peak.kind == "parameters" else "patching"
        if not peak.defined:
            sentences.append(f"{name(peak.site)}: undefined for all {peak.n_undefined} facts.")
            continue
        place = _in(peak)
        text = (
            f"{name(peak.site)}: {what} the {donor} model's{place} recovers {peak.value:.2f}{_interval(peak)}"
        )
        if peak.all_layers is not None:
            text += f", {peak.all_layers:.2f} in all layers at once" if place else ""
        if peak.lowest < -NOTHING:
            text += f"; in its worst window it moves away from the {donor} model ({peak.lowest:.2f})"
        sentences.append(text + ".")
    if found and recipient == "before":
        sentences.append(
            "Here 1 means the before model answers like the after model, 0 means it is unchanged."
        )
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _interval(peak: Peak) -> str:
    return "" if pd.isna(peak.low) else f" [{peak.low:.2f}, {peak.high:.2f}]"


def _behaviour(facts: pd.DataFrame | None) -> list[str]:
    if facts is None or facts.empty:
        return []
    before, after = (facts[f"{which}_correct"].astype(float).mean() for which in ("before", "after"))
    return [
        f"The before model answers {before:.0%} of the {len(facts)} facts right, the after model {after:.0%}."
    ]


def _behaviour_warnings(facts: pd.DataFrame | None) -> list[str]:
    if facts is None or facts.empty:
        return []
    before, after = (facts[f"{which}_correct"].astype(float).mean() for which in ("before", "after"))
    warnings = []
    if before < 0.5:
        warnings.append(
            f"The before model itself answers only {before:.0%} right: for facts it never knew, recovery "
            "means "
            "returning to its wrong answers."
        )
    if after > 0.5:
        warnings.append(
            f"The after model still answers {after:.0%} right: these facts are hardly forgotten, and "
            "recovery speaks of "
            "shifts in the logits that did not change the answers."
        )
    return warnings


def _control_warnings(controls: pd.DataFrame | None) -> list[str]:
    if controls is None or controls.empty:
        return ["No controls were recorded: nothing here shows that the patches did what they should."]
    failed = controls[~controls["passed"].astype(bool)]
    if failed.empty:
        return []
    names = ", ".join(
        dict.fromkeys(f"{row.control} ({row.site}, {row.metric})" for row in failed.itertuples())
    )
    return [
        f"{len(failed)} of {len(controls)} controls failed: {names}. Do not trust the numbers before that "
        "is explained."
    ]


def _warnings(found: tuple[Peak, ...]) -> list[str]:
    warnings = []
    defined = [peak for peak in found if peak.defined]
    if defined and (least := min(peak.n for peak in defined)) < FEW_FACTS:
        warnings.append(
            f"Only {least} fact{'s' * (least != 1)} could be scored: the intervals are wide and rough."
        )
    undefined = max((peak.n_undefined for peak in found), default=0)
    if undefined and defined:
        total = max(peak.n + peak.n_undefined for peak in found)
        warnings.append(
            f"{undefined} of {total} facts are undefined (the models differ by less than the noise floor "
            "there) and "
            "are left out of every mean."
        )
    torn = [
        peak
        for peak in defined
        if abs(peak.value - peak.other) > NOTHING and max(peak.value, peak.other) > NOTHING
    ]
    if torn:
        listed = ", ".join(f"{name(peak.site)} ({peak.value:.2f} against {peak.other:.2f})" for peak in torn)
        warnings.append(
            f"The mean of ratios and the ratio of means disagree at the peak of {listed}: a few facts "
            "carry the result."
        )
    return warnings
