"""Attacks on the page and in the terminal: what came back, in a sentence, and setting by setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ...attacks.plots import plot_attacks, plot_curve
from ...attacks.summary import ANY, curve, deciding, summarise_attacks
from ...evaluation import resampled
from ...facts import PROMPTS
from ...showing import plain, short
from ..elements import Figure, flat, spaced
from ..folders import AttacksFiles

KNOWS = 0.5  # a model before that answers less than this under a prompt: silence under it says nothing
COLUMNS = ("recall", "last", "never-knew", "excess", "probability", "never-knew's", "before", "near", "n")
OTHER = {"correct": "probability", "probability": "correct"}
SHORT = {"correct": "recall", "probability": "the probability of an answer token"}
Verdict = Literal["more", "same", "less", "part"]
VERDICTS: dict[Verdict, str] = {
    "more": "more comes back than the attack teaches a model that never knew",
    "same": "the two cannot be told apart",
    "less": "less comes back than the attack teaches a model that never knew",
}
WIDTH = 44  # characters of a setting in the terminal


@dataclass(frozen=True)
class AttackWords:
    """What attacks say together: a headline, what casts doubt on it, and the headline in a few words.

    `verdict`: whether more came back than a model that never knew gives under the same attack; None without such.
    """

    headline: str
    warnings: tuple[str, ...]
    short: str
    verdict: Verdict | None

    @classmethod
    def of(
        cls, frame: pd.DataFrame, left_out: Mapping[str, str] | None = None, notes: Iterable[str] = ()
    ) -> AttackWords:
        """Of the frame of attacks, of what could not be run, and of what the run itself wants to be minded."""
        measure = deciding(frame)
        summary = by_setting(frame, measure)
        best = _strongest(frame, summary, measure)
        other = _same(by_setting(frame, OTHER[measure]), best)
        everyone = not best["helped"]
        came_back = _came_back(best, other, measure, everyone=everyone)
        return cls(
            " ".join([came_back, *_beside_the_twin(best, other, measure), *_near(best, measure)]),
            (
                *_long(frame, measure),
                *_anchor(summary),
                *(_with_before(best, summary, measure) if everyone else []),
                *_not_understood(summary, measure),
                *_ended_early(frame),
                *_not_tested(left_out or {}),
                *(f"{note[:1].upper()}{note[1:]}." for note in notes),
            ),
            _short(best, measure),
            _verdict(best, other),
        )


@dataclass(frozen=True)
class AttacksSection:
    """One run of attacks on the page."""

    name: str
    anchor: str
    models: str
    words: AttackWords
    over: str  # what intervals resample
    figures: list[Figure]
    table: pd.DataFrame  # attack, setting, and COLUMNS, as texts
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def attacks_section(run: AttacksFiles, anchor: str) -> AttacksSection:
    """Everything the page says about one run of attacks."""
    measure = deciding(run.frame)
    summary = by_setting(run.frame, measure)
    settings = dict(run.run.get("settings") or {})
    left_out = settings.pop("left_out", None) or {}
    # By setting, like sentences and table: in the strongest of each attack facts that it does not ask count as well.
    drawn = [plot_attacks(run.frame, one, by="setting") for one in dict.fromkeys((measure, "correct"))]
    if len(curve(run.frame)):
        drawn.append(plot_curve(run.frame, measure))
    figures = [Figure.of(figure, run.label) for figure in drawn]
    return AttacksSection(
        name=run.label,
        anchor=anchor,
        models=_models(run.run["about"]),
        words=AttackWords.of(run.frame, left_out, run.run["about"].get("notes", ())),
        over=resampled(summary),
        figures=figures,
        table=_table(run.frame),
        settings=[*_attacks(settings.pop("attacks", [])), *flat(settings)],
        versions=flat(run.run.get("versions") or {}),
    )


def by_setting(frame: pd.DataFrame, measure: str = "correct") -> pd.DataFrame:
    """The summary by setting, with `helped` of each."""
    needs = frame.groupby(["attack", "setting"])["helped"].any().reset_index()
    found = summarise_attacks(frame, measure).merge(needs, on=["attack", "setting"], how="left")
    return found.astype({"helped": bool})


def attack_table(frame: pd.DataFrame, left_out: Mapping[str, str] | None = None, notes: Iterable[str] = ()) -> str:
    """The settings of the attacks as plain text for a terminal, what came back in words, and what to mind."""
    summary = by_setting(frame)
    table = _table(frame)
    words = AttackWords.of(frame, left_out, notes)
    minds = [f"Mind: {warning}" for warning in words.warnings]
    brackets = f"Brackets: 95 % intervals over {resampled(summary)}."
    return "\n".join(
        [
            plain(table.assign(setting=[short(text, WIDTH) for text in table["setting"]])),
            brackets,
            "",
            words.headline,
            *minds,
        ]
    )


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a setting, all texts; recall first, and beside it the probability of an answer token and the twin's."""
    likely = by_setting(frame, "probability").to_dict("records")
    rows = [
        (
            str(row["attack"]),
            str(row["setting"]),
            _cell(row, "value", "low", "high"),
            _cell(row, "last"),
            _cell(row, "never_knew", "never_knew_low", "never_knew_high"),
            _cell(row, "excess", "excess_low", "excess_high", "+.2f"),
            _cell(graded, "value"),
            _cell(graded, "never_knew"),
            _cell(row, "before"),
            _cell(row, "near"),
            str(row["n"]),
        )
        for row, graded in zip(by_setting(frame).to_dict("records"), likely, strict=True)
    ]
    return pd.DataFrame(rows, columns=["attack", "setting", *COLUMNS])


def _cell(row: Mapping[Any, Any], name: str, low: str = "", high: str = "", shape: str = ".2f") -> str:
    """A number with its interval; never "-0.00"."""
    if pd.isna(row[name]):
        return "–"
    texts = [f"{round(row[key], 2) + 0.0:{shape}}" for key in (name, low, high) if key]
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _same(summary: pd.DataFrame, best: pd.Series) -> pd.Series:
    """The row of the same attack and setting."""
    return summary[(summary["attack"] == best["attack"]) & (summary["setting"] == best["setting"])].iloc[0]


def _strongest(frame: pd.DataFrame, summary: pd.DataFrame, measure: str) -> pd.Series:
    """The row of the strongest attack that gets no help; of the strongest of all where each does."""
    over_all = summarise_attacks(frame, measure, by="attack").set_index("attack")
    if ANY not in over_all.index:
        return _highest(summary)
    names = summary["attack"] + ": " + summary["setting"]
    return summary[names == over_all.loc[ANY, "setting"]].iloc[0]


def _highest(summary: pd.DataFrame) -> pd.Series:
    return summary.iloc[int(summary["value"].to_numpy().argmax())]


def _came_back(best: pd.Series, other: pd.Series, measure: str, *, everyone: bool) -> str:
    who = "that need no help" if everyone else "tried, all of which use the model before or the beginning of the answer"
    opening = f"Of the attacks {who}, the strongest is {_named(best)}: under it"
    if measure == "correct":
        return (
            f"{opening} the model answers {best['value']:.1%} {_percents(best, 'low', 'high')} of {best['n']} facts to "
            f"forget, {best['start']:.1%} when nobody attacks."
        )
    return (
        f"{opening} an answer token of the {best['n']} facts to forget has the probability {best['value']:.2f} "
        f"[{best['low']:.2f}, {best['high']:.2f}], {best['start']:.3f} when nobody attacks; exact recall of whole "
        f"answers is {other['value']:.1%} {_percents(other, 'low', 'high')}, {other['start']:.1%} when nobody attacks."
    )


def _beside_the_twin(best: pd.Series, other: pd.Series, measure: str) -> list[str]:
    """What the attack gives a model that never knew; a verdict where recall and probability agree on it."""
    if pd.isna(best["never_knew"]):
        return []
    verdicts = [VERDICTS[_sign(row)] for row in (best, other)]
    recall, likely = (best, other) if measure == "correct" else (other, best)
    points = [100 * recall[name] + 0.0 for name in ("excess", "excess_low", "excess_high")]
    twin = f"{recall['never_knew']:.1%} {_percents(recall, 'never_knew_low', 'never_knew_high')}"
    by_recall = f"{points[0]:+.1f} percentage points [{points[1]:+.1f}, {points[2]:+.1f}]"
    by_probability = (
        f"{likely['excess']:+.2f} [{likely['excess_low']:+.2f}, {likely['excess_high']:+.2f}] "
        f"({likely['value']:.2g} against {likely['never_knew']:.2g})"
    )
    if verdicts[0] == verdicts[1]:
        told = f"The excess is {by_recall}: {verdicts[0]}."
        if measure != "correct":
            told = f"The excess is {by_probability} in an answer token's probability, {by_recall} in recall: "
            told += f"{verdicts[0]}."
        return [f"The never-knew model answers {twin} under the same attack. {told}"]
    first, second = verdicts if measure == "correct" else verdicts[::-1]
    return [
        f"The never-knew model answers {twin} under the same attack. Two measures part: by exact recall the excess is "
        f"{by_recall}, {first}; by the probability of an answer token it is {by_probability}, {second}."
    ]


def _short(best: pd.Series, measure: str) -> str:
    what = "answered right" if measure == "correct" else "an answer token's probability"
    told = f"{what} up to {best['value']:.1%} {_percents(best, 'low', 'high')}, by {_named(best)}; "
    if pd.isna(best["never_knew"]):
        return f"{told}no model that never knew was attacked beside it"
    twin = f"{best['never_knew']:.1%} {_percents(best, 'never_knew_low', 'never_knew_high')}"
    return f"{told}a model that never knew, by the same: {twin}"


def _verdict(best: pd.Series, other: pd.Series) -> Verdict | None:
    """By recall and by the probability of an answer token, where the two agree."""
    if pd.isna(best["never_knew"]):
        return None
    told: set[Verdict] = {_sign(best), _sign(other)}
    return told.pop() if len(told) == 1 else "part"


def _sign(row: pd.Series) -> Verdict:
    """By one measure."""
    return "more" if row["excess_low"] > 0 else "less" if row["excess_high"] < 0 else "same"


def _long(frame: pd.DataFrame, measure: str) -> list[str]:
    if measure == "correct":
        return []
    median = float(frame.loc[frame["role"] == "forget", "tokens"].median())
    return [
        f"The answers are long ({median:.0f} tokens at the median): exact recall counts an answer as lost once a "
        "single token is not the most probable one, so the probability of an answer token decides, and recall stands "
        "beside it."
    ]


def _near(best: pd.Series, measure: str) -> list[str]:
    if pd.isna(best["near"]):
        return []
    if measure == "correct":
        return [f"Of near facts it then answers {best['near']:.1%}."]
    return [f"An answer token of near facts then has the probability {best['near']:.2f}."]


def _anchor(summary: pd.DataFrame) -> list[str]:
    if summary["never_knew"].notna().any():
        return []
    return [
        "No never-knew model was attacked, so the figure has no anchor: what an attack teaches, and lucky guesses, "
        "cannot be told from what was still there."
    ]


def _with_before(best: pd.Series, summary: pd.DataFrame, measure: str) -> list[str]:
    stronger = summary[summary["helped"] & (summary["value"] > best["value"])]
    if stronger.empty:
        return []
    top = _highest(stronger)
    return [
        "With what an attacker need not have (the model before, or the beginning of the answer), "
        f"{_named(top)} brings {SHORT[measure]} to "
        f"{top['value']:.1%} {_percents(top, 'low', 'high')}."
    ]


def _not_understood(summary: pd.DataFrame, measure: str) -> list[str]:
    rows = summary[summary["before"] < KNOWS]
    if rows.empty or measure != "correct":
        return []
    listed = "; ".join(f"{row['setting']} ({row['before']:.1%})" for row in rows.to_dict("records"))
    return [
        f"Under some prompts the model before itself answers less than {KNOWS:.0%} of the facts, so that silence "
        f"under them says nothing: {listed}."
    ]


def _ended_early(frame: pd.DataFrame) -> list[str]:
    """Attacks that broke a model: what they could have brought back later is not known."""
    ends = frame[frame["broke"] != ""].drop_duplicates(["attack", "model", "broke"])
    listed = [f"{row['attack']} on the model {row['model']}, {row['broke']}" for _, row in ends.iterrows()]
    return [f"Ended early, so that later steps were not asked: {'; '.join(listed)}."] if listed else []


def _not_tested(left_out: Mapping[str, str]) -> list[str]:
    if not left_out:
        return []
    return [f"Not tested: {'; '.join(f'{name}, which needs {need}' for name, need in left_out.items())}."]


def _named(row: pd.Series) -> str:
    return f"{row['attack']} ({row['setting']})" if row["setting"] else str(row["attack"])


def _percents(row: pd.Series, low: str, high: str) -> str:
    return f"[{row[low]:.1%}, {row[high]:.1%}]"


def _models(about: Mapping[str, Any]) -> str:
    """Who is attacked, beside whom, and in which phrasings is asked."""
    names, asked = about.get("models") or {}, PROMPTS[about["settings"]["prompts"]]
    others = "; ".join(f"{role}: {names[role]}" for role in ("never-knew", "before") if role in names)
    return f"{names.get('after', 'a model')}, attacked{f' ({others})' if others else ''}; facts {asked}"


def _attacks(attacks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The attacks that were run, a line each."""
    return [
        (str(one.get("attack", "attack")), ", ".join(f"{spaced(k)}: {v}" for k, v in one.items() if k != "attack"))
        for one in attacks
    ]
