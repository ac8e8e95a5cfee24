"""What a page begins with: of every model that was made to forget, what all of its runs say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..attacks.summary import deciding
from ..unlearning.remaining import KNOWN
from ..unlearning.settings import kept_row
from .folders import EvaluationFiles, Found, UnlearningFiles
from .headline import Words
from .sections.attacks import AttackWords, Verdict

COLUMNS = ("forgotten", "what it cost elsewhere", "came back under attack", "put back by patches", "so")
LITTLE = 0.2  # of what was answered before: where less went, there is nothing to judge
STRONGEST = ("more", "part", "same", "less", None)  # of several runs of attacks the one that says most is told
ALONE = {
    "dissected": "This alone cannot tell erased from hidden: patches show where the model before's predictions can be "
    "put back in, not whether this model can still reach them. Attack it, beside a model that never knew.",
    "looked at": "This alone cannot tell erased from hidden: what is no longer answered may be lost, or out of reach. "
    "Attack it, beside a model that never knew.",
    "no anchor": "This cannot tell what was still there from what the attack taught: attack a model that never knew "
    "beside it.",
    "kept": "Most is answered still: too little was forgotten to ask whether it was erased.",
    "unknown": "The model before answers too little for anything to be forgotten.",
}
VERDICTS = {
    "more": "More came back than the same attack gives a model that never knew: at least a part was hidden.",
    "same": "No attack tried brings back more than it gives a model that never knew. That is no proof of erasure: "
    "others may.",
    "less": "Less comes back than the same attack gives a model that never knew. That is no proof of erasure: other "
    "attacks may bring back more.",
    "part": "Recall and probability part under attack, so that erased and hidden cannot be told apart here.",
}


@dataclass
class Runs:
    """The runs about one model after, known by a hash of its weights."""

    name: str
    weights: str | None
    unlearning: UnlearningFiles | None = None
    dissections: list[tuple[pd.DataFrame, Words]] = field(default_factory=list)  # facts, and what it says
    attacks: list[tuple[pd.DataFrame, AttackWords]] = field(default_factory=list)  # the frame, and what it says
    evaluations: list[EvaluationFiles] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """One model: what was forgotten, its cost, what came back, what patches put back, and what follows, as texts."""

    name: str
    forgotten: str
    cost: str
    attacked: str
    patched: str
    so: str

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Each text with its label."""
        return list(zip(COLUMNS, (self.forgotten, self.cost, self.attacked, self.patched, self.so), strict=True))


def answers(found: Found, dissected: Sequence[Words], attacked: Sequence[AttackWords]) -> list[Answer]:
    """An answer for every model after, in the order in which its runs are found.

    Args:
        found: the runs.
        dissected, attacked: what each dissection and each run of attacks says, in their order.
    """
    return [_answer(runs) for runs in _by_model(found, dissected, attacked)]


def answer_table(found: Sequence[Answer]) -> pd.DataFrame:
    """All models beside each other, as texts."""
    rows = [(one.name, *(text for _, text in one.lines)) for one in found]
    return pd.DataFrame(rows, columns=["model", *COLUMNS])


def _by_model(found: Found, dissected: Sequence[Words], attacked: Sequence[AttackWords]) -> list[Runs]:
    """Runs that are about the same weights belong together, wherever they lie.

    A model that was only evaluated is none that was made to forget.
    """
    groups = [Runs(run.label, run.run["about"].get("weights"), run) for run in found.unlearnings]

    def about(weights: str | None, name: str) -> list[Runs]:
        """Several, where unlearning ended with the same weights more than once."""
        known = [runs for runs in groups if weights is not None and runs.weights == weights]
        if not known:
            known = [Runs(name, weights)]
            groups.extend(known)
        return known

    for run, words in zip(found.dissections, dissected, strict=True):
        told = run.run["about"]
        for runs in about(_weights(told.get("settings", {}), "after"), str(told["after"])):
            runs.dissections.append((run.facts, words))
    for run, words in zip(found.attacks, attacked, strict=True):
        told = run.run["about"]
        for runs in about(_weights(told["settings"].get("models", {}), "after"), str(told["models"]["after"])):
            runs.attacks.append((run.frame, words))
    for run in found.evaluations:
        weights = _weights(run.run["about"]["settings"], "model")
        for runs in groups:
            if weights is not None and runs.weights == weights:
                runs.evaluations.append(run)
    return groups


def _weights(settings: Mapping[str, Any], whose: str) -> str | None:
    known = settings.get(whose)
    return known.get("weights") if isinstance(known, Mapping) else None


def _answer(runs: Runs) -> Answer:
    before, after, forgotten = _forgotten(runs)
    attacked = min((words for _, words in runs.attacks), key=lambda w: STRONGEST.index(w.verdict), default=None)
    patched = max((words for _, words in runs.dissections), key=lambda w: bool(w.peaks), default=None)  # a map has none
    return Answer(
        name=runs.name,
        forgotten=forgotten,
        cost="; ".join(_costs(runs)) or "not measured",
        attacked="no attack was run" if attacked is None else attacked.short,
        patched="not dissected" if patched is None else patched.short,
        so=_so(runs, before, after, None if attacked is None else attacked.verdict),
    )


def _forgotten(runs: Runs) -> tuple[float, float, str]:
    """How much is answered before and after, by what decides for these answers, and in words."""
    if runs.unlearning is not None:
        frame, about = runs.unlearning.frame, runs.unlearning.run["about"]
        first, last = frame.iloc[0], kept_row(frame, about)
        names = ("forget_recall", "forget_probability" if "forget_probability" in frame else "forget_recall")
        recall, likely = ((float(first[name]), float(last[name])) for name in names)
        long = "forget_token_recall" in frame
    elif runs.dissections:
        facts = runs.dissections[0][0]
        recall = _means(facts, "correct")
        likely = _means(facts, "probability") if "before_probability" in facts else recall
        long = recall[0] < KNOWN  # of long answers hardly one is right to its last token
    else:
        return _unattacked(runs.attacks[0][0])
    told = f"answered right {recall[0]:.1%} → {recall[1]:.1%}"
    if likely != recall:
        told += f"; an answer token's probability {likely[0]:.2f} → {likely[1]:.2f}"
    return *(likely if long else recall), told


def _means(facts: pd.DataFrame, what: str) -> tuple[float, float]:
    before, after = (float(facts.groupby("fact")[f"{which}_{what}"].mean().mean()) for which in ("before", "after"))
    return before, after


def _unattacked(frame: pd.DataFrame) -> tuple[float, float, str]:
    """What the models say when nobody attacks; the model before may not have been there."""
    measure = deciding(frame)
    plain = frame[(frame["attack"] == "none") & (frame["role"] == "forget")]
    shares = plain.groupby("model")[measure].mean()
    after = float(shares["after"])
    what = "answered right" if measure == "correct" else "an answer token's probability"
    if "before" not in shares:
        return float("nan"), after, f"{what} {after:.1%} now; the model before was not asked"
    return float(shares["before"]), after, f"{what} {shares['before']:.1%} → {after:.1%}"


def _costs(runs: Runs) -> Iterator[str]:
    if runs.unlearning is not None:
        frame = runs.unlearning.frame
        first, last = frame.iloc[0], kept_row(frame, runs.unlearning.run["about"])
        for role in ("near", "far", "retain"):
            if f"{role}_recall" in frame and not pd.isna(last[f"{role}_recall"]):
                yield f"{role} facts {first[f'{role}_recall']:.1%} → {last[f'{role}_recall']:.1%}"
        if "text_kl" in frame:
            yield f"general text: KL {last['text_kl']:.3g} nats a token"
        return
    for run in runs.evaluations[:1]:
        summary = run.result.summary()
        for row in summary[summary["measure"].isin(["recall", "text_kl"])].to_dict("records"):
            if row["measure"] == "text_kl":
                yield f"general text: KL {row['value']:.3g} nats a token"
            elif row.get("role") in ("near", "far", "retain"):
                yield f"{row['role']} facts {row['value']:.1%} after"


def _so(runs: Runs, before: float, after: float, verdict: Verdict | None) -> str:
    if before < KNOWN:
        return ALONE["unknown"]
    if after > (1 - LITTLE) * before:
        return ALONE["kept"]
    if verdict is not None:
        return VERDICTS[verdict]
    return ALONE["no anchor" if runs.attacks else "dissected" if runs.dissections else "looked at"]
