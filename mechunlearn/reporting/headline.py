"""What a dissection says, in sentences that claim no more than its summary shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from ..dissection.metrics import METRICS, PAPER_METRIC
from ..dissection.peaks import MUCH, NOTHING, PART, Peak, amount, decimal, judged, name, peaks
from ..dissection.said import PLACE, Said, said_under
from .fact_table import counted
from .put_back import counts, likely, on_damage, on_states

FEW_FACTS = 30
# States and parameters that can be part of a cause. The residual stream carries everything a model has computed,
# and whole blocks hold every weight of a layer: that these restore predictions says little.
STATES = ("mlp_coefficients+attention_output", "mlp_coefficients", "attention_output")
WHOLE = ("everything", "block", "residual")
MAPPED = (
    "A map of single positions: the figure shows at which layer and token one patch moves the predictions towards the "
    "donor's. Windows over all positions, on which a verdict would rest, were not measured here."
)
LIMITS = (
    "A recovered share of a distance is not the answer: what is left of a distance of many nats can still hide it. "
    "Whether the answer is back is read from what is answered, its rank and its probability.",
    "A patched state already holds everything the donor computed upstream. Its recovery shows where the donor's "
    "predictions can be put back in, not which weights changed, nor that the recipient could still compute them by "
    "itself.",
    "Restored parameters run on the recipient's own activations, which may be far from what they were "
    "trained on. The curves of states and of parameters answer different questions and are not to be ranked "
    "against each other.",
    "Weights that would undo the change are not unique: a site that restores the predictions is a sufficient "
    "place to intervene, not the only one, and not proof that the knowledge is stored there.",
    "The answer is read by feeding the expected answer itself (teacher forcing), so every model sees its "
    "beginning; behaviour when the model writes freely may differ.",
    "The peak is the best of many windows, chosen on the same facts as its interval: read it as an upper estimate.",
    "Intervals resample subjects (a fact without one counts by itself). They say nothing about other random seeds, "
    "other prompts or other models.",
    "Patching does not measure whether knowledge can be brought back by training or by prompts: no recovery by "
    "patching is no proof of erasure, and recovery by patching is no attack.",
)


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
        answers: pd.DataFrame | None = None,
        metric: str = PAPER_METRIC,
        notes: Iterable[str] = (),
    ) -> Words:
        """Judge the direction before->after where `summary` has it, else the only other one.

        `facts` and `answers` are the dissection's frames: without them nothing is said about answers. `notes` is what
        the run itself wants to be minded.
        """
        doubts = (*_control_warnings(controls), *_behaviour_warnings(facts), *(f"{_capital(n)}." for n in notes))
        rows = summary[(summary["metric"] == metric) & summary["position"].isna()]
        restored, injected = (
            peaks(rows[rows["direction"] == direction]) for direction in ("before->after", "after->before")
        )
        found = restored or injected
        if not found:
            return cls(MAPPED, tuple(_behaviour(facts)), doubts, ())
        told = Told(facts, answers, METRICS[metric].words if metric in METRICS else metric)
        direction = "before->after" if restored else "after->before"
        return cls(
            headline=_headline(restored, told) if restored else _headline_reversed(injected, told),
            evidence=(
                *_behaviour(facts),
                *_evidence(found, direction, told),
                *([_headline_reversed(injected, told)] if restored and injected else []),
            ),
            warnings=(*doubts, *_warnings(found)),
            peaks=found,
        )


@dataclass(frozen=True)
class Told:
    """What the dissection tells of answers, and what its distance is called."""

    facts: pd.DataFrame | None
    answers: pd.DataFrame | None
    distance: str

    def under(self, peak: Peak, direction: str = "before->after") -> Said | None:
        """What is answered under the patch at this peak."""
        if self.facts is None or self.answers is None or not peak.defined:
            return None
        return said_under(self.facts, self.answers, peak.site, peak.first_layer, peak.last_layer, direction)

    def most(self, states: list[Peak]) -> tuple[Peak, Said] | None:
        """The patch of these sites under which most is answered right, of those that leave a layer out."""
        if self.facts is None or self.answers is None:
            return None
        sites = {peak.site: peak for peak in states}
        rows = self.answers[(self.answers["direction"] == "before->after") & self.answers["site"].isin(list(sites))]
        rows = rows[(rows["first_layer"] > 0) | (rows["last_layer"] < rows["last_layer"].max())]
        if rows.empty:
            return None
        shares = rows.groupby(PLACE, observed=True)["correct"].mean()
        site, _, first, last = shares.index[int(shares.to_numpy().argmax())]
        peak = replace(sites[str(site)], first_layer=int(first), last_layer=int(last))
        said = self.under(peak)
        return None if said is None else (peak, said)


def _headline(found: tuple[Peak, ...], told: Told) -> str:
    defined = [peak for peak in found if peak.defined]
    if not defined:
        return (
            "Undefined: on these facts the two models differ by less than the noise floor, so there is "
            "nothing to recover."
        )
    states = [peak for peak in defined if peak.kind == "activation" and peak.site not in WHOLE]
    named = [peak for peak in states if peak.site in STATES]
    parameters = [peak for peak in defined if peak.kind == "parameters" and peak.site not in WHOLE]
    of_states = on_states(named or states, told.distance, told.under, told.most(named or states)) if states else ""
    sentences = [of_states, *_on_parameters(parameters, found, told)]
    return " ".join(filter(None, sentences)) or (
        f"Only {', '.join(name(peak.site) for peak in defined)} was tried, which holds too much to point anywhere."
    )


def _on_parameters(parameters: list[Peak], found: tuple[Peak, ...], told: Told) -> list[str]:
    sentences = []
    values = next((peak for peak in parameters if peak.site == "value_vectors"), None)
    coefficients = next((peak for peak in found if peak.site == "mlp_coefficients" and peak.defined), None)
    if values is not None and _is_flat(values):
        text = "Restoring the value vectors undoes next to nothing of the change in any window"
        said = None if coefficients is None else told.under(coefficients)
        if coefficients is not None and said is not None and said.back and (said.returned or 0.0) >= MUCH:
            text += (
                f", while the after model's own value vectors turn the before model's coefficients into the answer "
                f"({counts(said)}): what they store was left in place, and what changed is which of it is called up"
            )
        sentences.append(text + ".")
    elif values is not None and values.value < PART:
        sentences.append(
            f"Restoring the value vectors undoes {amount(values.value)} of the change "
            f"(at most {decimal(values.value)}{_in(values)}, {decimal(values.lowest)} in the worst window)."
        )
    best = max(parameters, key=lambda peak: peak.value, default=None)
    if best is not None and best.value >= PART:
        sentences.append(
            f"Among parameters, restoring {name(best.site)}{_in(best)} alone undoes {amount(best.value)} of "
            f"the change ({decimal(best.value)}{_answered(told.under(best))})."
        )
    elif best is not None and (len(parameters) > 1 or not sentences):
        sentences.append(
            f"No group of parameters tried undoes more than {decimal(best.value)} of the change by itself "
            f"({name(best.site)}{_in(best)})."
        )
    return sentences


def _in(peak: Peak) -> str:
    return "" if peak.first_layer < 0 else f" in {peak.where}"


def _answered(said: Said | None) -> str:
    return "" if said is None else f"; answered {counts(said)}"


def _headline_reversed(found: tuple[Peak, ...], told: Told) -> str:
    defined = [peak for peak in found if peak.defined]
    if not defined:
        return _headline(found, told)
    best = max(defined, key=lambda peak: peak.value)
    return on_damage(best, told.distance, told.under(best, "after->before"))


def _is_flat(peak: Peak) -> bool:
    return abs(peak.value) <= NOTHING and abs(peak.lowest) <= NOTHING


def _evidence(found: tuple[Peak, ...], direction: str, told: Told) -> list[str]:
    donor, recipient = direction.split("->")
    sentences = []
    for peak in found:
        what = "restoring" if peak.kind == "parameters" else "patching"
        if not peak.defined:
            sentences.append(f"{name(peak.site)}: undefined for all {peak.n_undefined} facts.")
            continue
        place = _in(peak)
        text = f"{name(peak.site)}: {what} the {donor} model's{place} recovers "
        text += f"{decimal(peak.value)}{_interval(peak)} of the {told.distance}"
        if peak.all_layers is not None and place:
            text += f", {decimal(peak.all_layers)} in all layers at once"
            if peak.site == STATES[0]:
                text += " (what that lacks to 1 is due to value vectors, embedding, final norm and unembedding)"
        if peak.lowest < -NOTHING:
            text += f"; in its worst window it moves away from the {donor} model ({decimal(peak.lowest)})"
        said = told.under(peak, direction)
        sentences.append(f"{text}{'' if said is None else f'; answered {counts(said)}{likely(said)}'}.")
    if found and recipient == "before":
        sentences.append("Here 1 means the before model predicts what the after model does, 0 means it is unchanged.")
    return [_capital(sentence) for sentence in sentences]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _interval(peak: Peak) -> str:
    return "" if pd.isna(peak.low) else f" [{decimal(peak.low)}, {decimal(peak.high)}]"


def _behaviour(facts: pd.DataFrame | None) -> list[str]:
    if facts is None or facts.empty:
        return []
    before, after = (facts[f"{which}_correct"].astype(float).mean() for which in ("before", "after"))
    return [f"The before model answers {before:.0%} of the {counted(facts)} right, the after model {after:.0%}."]


def _behaviour_warnings(facts: pd.DataFrame | None) -> list[str]:
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


def _control_warnings(controls: pd.DataFrame | None) -> list[str]:
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


def _warnings(found: tuple[Peak, ...]) -> list[str]:
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
        listed = ", ".join(f"{name(peak.site)} ({decimal(peak.value)} against {decimal(peak.other)})" for peak in torn)
        warnings.append(
            f"The mean of ratios and the ratio of means disagree at the peak of {listed}: a few facts carry the result."
        )
    return warnings
