"""What a dissection says, in sentences that claim no more than its summary shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from ..dissection.metrics import METRICS, PAPER_METRIC
from ..dissection.peaks import MUCH, NOTHING, PART, Peak, amount, decimal, most_layers, peaks
from ..dissection.plotting.styles import site_words
from ..dissection.said import PLACE, Said, said_under
from .doubts import on_behaviour, on_controls, on_peaks, strangers
from .fact_table import counted
from .put_back import ONLY_MOST, counts, likely, on_damage, on_states

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
    """What one direction of a dissection says: a headline, its evidence, doubts, and the headline in a few words."""

    headline: str
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]
    peaks: tuple[Peak, ...]
    short: str

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
        changed: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Words:
        """Judge the direction before->after where `summary` has it, else the only other one.

        `facts` and `answers` are the dissection's frames: without them nothing is said about answers. `notes` is what
        the run itself wants to be minded; `changed`, by how much the weights of each role differ.
        """
        doubts = (*on_controls(controls), *on_behaviour(facts), *(f"{_capital(n)}." for n in notes))
        rows = summary[(summary["metric"] == metric) & summary["position"].isna()]
        restored, injected = (
            peaks(rows[rows["direction"] == direction]) for direction in ("before->after", "after->before")
        )
        found = restored or injected
        if not found:
            return cls(MAPPED, tuple(_behaviour(facts)), doubts, (), "only single positions were patched: see the map")
        told = Told(facts, answers, METRICS[metric].words if metric in METRICS else metric)
        direction = "before->after" if restored else "after->before"
        apart = strangers(changed or {})
        return cls(
            headline=apart or (_headline(restored, told) if restored else _headline_reversed(injected, told)),
            evidence=(
                *_behaviour(facts),
                *_evidence(found, direction, told),
                *([_headline_reversed(injected, told)] if restored and injected else []),
            ),
            warnings=(*doubts, *on_peaks(found)),
            peaks=found,
            short="nothing that could be judged: the models share too little"
            if apart
            else _short(found, direction, told),
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
        """The patch of these sites, of at most half of the layers, under which most is answered right."""
        if self.facts is None or self.answers is None:
            return None
        sites = {peak.site: peak for peak in states}
        rows = self.answers[(self.answers["direction"] == "before->after") & self.answers["site"].isin(list(sites))]
        rows = rows[~most_layers(rows, int(rows["last_layer"].max()))] if len(rows) else rows
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
    states = _candidates(defined)
    parameters = [peak for peak in defined if peak.kind == "parameters" and peak.site not in WHOLE and not peak.most]
    of_states = on_states(states, told.distance, told.under, told.most(states)) if states else ""
    sentences = [of_states, *_on_parameters(parameters, found, told)]
    return " ".join(filter(None, sentences)) or (
        f"Only {', '.join(site_words(peak.site) for peak in defined)} was tried, which holds too much to point "
        "anywhere."
    )


def _candidates(defined: Iterable[Peak]) -> list[Peak]:
    """Sites of states that can be part of a cause."""
    states = [peak for peak in defined if peak.kind == "activation" and peak.site not in WHOLE]
    return [peak for peak in states if peak.site in STATES] or states


def _short(found: tuple[Peak, ...], direction: str, told: Told) -> str:
    """The headline in a few words: what is answered under the best patch of at most half of the layers."""
    defined = [peak for peak in found if peak.defined]
    if not defined:
        return "undefined: the models do not differ measurably on these facts"
    candidates = _candidates(defined) or defined
    narrow = [peak for peak in candidates if not peak.most]
    if not narrow:
        return "nothing that could be judged: every patch replaced most of the model"
    donor, recipient = direction.split("->")
    best = max(narrow, key=lambda peak: peak.value)
    said = told.under(best, direction)
    most = told.most(narrow) if direction == "before->after" else None
    if most is not None and (said is None or most[1].right > said.right):
        best, said = most
    what = f"the model {donor}'s {site_words(best.site)}{_in(best)}"
    if said is None:
        return f"{decimal(best.value)} of the {told.distance} undone by {what}; answers were not recorded"
    return f"{counts(said)}, the model {recipient} given {what}"


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
            f"Among parameters, restoring {site_words(best.site)}{_in(best)} alone undoes {amount(best.value)} of "
            f"the change ({decimal(best.value)}{_answered(told.under(best))})."
        )
    elif best is not None and (len(parameters) > 1 or not sentences):
        sentences.append(
            f"No group of parameters tried undoes more than {decimal(best.value)} of the change by itself "
            f"({site_words(best.site)}{_in(best)})."
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
    narrow = [peak for peak in defined if not peak.most]
    if not narrow:
        return f"{ONLY_MOST}."
    best = max(narrow, key=lambda peak: peak.value)
    return on_damage(best, told.distance, told.under(best, "after->before"))


def _is_flat(peak: Peak) -> bool:
    return abs(peak.value) <= NOTHING and abs(peak.lowest) <= NOTHING


def _evidence(found: tuple[Peak, ...], direction: str, told: Told) -> list[str]:
    donor, recipient = direction.split("->")
    sentences = []
    for peak in found:
        what = "restoring" if peak.kind == "parameters" else "patching"
        if not peak.defined:
            sentences.append(f"{site_words(peak.site)}: undefined for all {peak.n_undefined} facts.")
            continue
        place = _in(peak)
        text = f"{site_words(peak.site)}: {what} the {donor} model's{place} recovers "
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
