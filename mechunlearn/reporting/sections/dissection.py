"""Dissections on the page: texts, tables and figures, all plain text that the writers escape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...dissection.metrics import PAPER_METRIC
from ...dissection.peaks import answered, judged, peak_table
from ...dissection.plotting.maps import plot_positions
from ...dissection.plotting.recovery import plot_answered, plot_recovery, window_families
from ...dissection.plotting.styles import metric_words, site_words
from ...dissection.summary import summarise_recovery
from ...evaluation import resampled
from ...facts import PROMPTS
from ..elements import Figure, flat
from ..fact_table import FactTable, counted
from ..folders import DissectionFiles
from ..headline import Words


@dataclass(frozen=True)
class DissectionSection:
    """One dissection on the page."""

    name: str
    anchor: str
    about: dict[str, Any]
    words: Words
    over: str  # what intervals resample
    figures: list[Figure]
    more_figures: list[Figure]
    peaks: pd.DataFrame
    behaviour: pd.DataFrame
    controls: pd.DataFrame
    n_passed: int
    n_failed: int
    noise: pd.DataFrame
    changed: pd.DataFrame
    facts: FactTable
    asked: str  # in which phrasings
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def dissection_section(run: DissectionFiles, anchor: str) -> DissectionSection:
    """Everything the page says about one dissection."""
    summary = summarise_recovery(run.frame)
    about = run.run["about"]
    figures, more = _figures(run, summary)
    words = Words.of(
        summary, controls=run.controls, facts=run.facts, answers=run.answers, notes=about.get("notes", ()),
        changed=(about.get("comparison") or {}).get("relative_change"),
    )  # fmt: skip
    restored = (summary["direction"] == "before->after").any()
    direction = "before->after" if restored else "after->before"
    verdicts = [bool(value) for value in run.controls["passed"] if judged(value)]
    return DissectionSection(
        name=run.label,
        anchor=anchor,
        about=about,
        words=words,
        over=resampled(summary),
        figures=figures,
        more_figures=more,
        peaks=peak_table(words.peaks, answered(run.answers, words.peaks, direction)).assign(
            site=[site_words(peak.site) for peak in words.peaks]
        ),
        behaviour=_behaviour(run.facts),
        controls=_controls(run.controls),
        n_passed=sum(verdicts),
        n_failed=len(verdicts) - sum(verdicts),
        noise=_noise(run.frame, about.get("noise_floor") or {}),
        changed=_changed(about.get("comparison") or {}),
        asked=PROMPTS[about.get("prompts", "own")],
        facts=FactTable.of(run.facts, run.answers, run.frame, words.peaks),
        settings=flat(_settings(about)),
        versions=flat(about.get("versions") or run.run.get("versions") or {}),
    )


def _figures(run: DissectionFiles, summary: pd.DataFrame) -> tuple[list[Figure], list[Figure]]:
    """The figures to see at once, and those for who wants more: other metrics, the other statistic."""
    shown, more, frame = [], [], run.frame
    pair = f"{run.run['about']['before']} and {run.run['about']['after']}"
    whole = summary[summary["position"].isna()]
    metrics = list(dict.fromkeys(whole["metric"]))
    first = PAPER_METRIC if PAPER_METRIC in metrics else next(iter(metrics), None)
    for direction in dict.fromkeys(whole["direction"]):
        for rows in _by_family(whole[whole["direction"] == direction]):
            for metric in metrics:
                figure = Figure.of(plot_recovery(rows, metric, direction=direction), pair)
                (shown if metric == first else more).append(figure)
            said = _of_windows(run.answers, rows, direction)
            if len(said):
                shown.append(Figure.of(plot_answered(said, run.facts, direction=direction), pair))
            if first is not None:
                other = plot_recovery(rows, first, "ratio_of_means", direction=direction)
                more.append(Figure.of(other, pair))
    maps = frame[frame["position"].notna()]
    for direction, metric in dict.fromkeys(zip(maps["direction"], maps["metric"], strict=True)):
        figure = Figure.of(plot_positions(maps, metric, direction=direction), pair)
        (shown if metric == PAPER_METRIC else more).append(figure)
    return shown, more


def _of_windows(answers: pd.DataFrame, rows: pd.DataFrame, direction: str) -> pd.DataFrame:
    """The answers under the patches that these rows are about."""
    place = ["site", "first_layer", "last_layer"]
    there = set(rows[place].itertuples(index=False, name=None))
    here = [key in there for key in answers[place].itertuples(index=False, name=None)]
    kinds = dict(zip(rows["site"].astype(str), rows["kind"], strict=True))
    chosen = answers[np.asarray(here, dtype=bool) & (answers["direction"] == direction)]
    return chosen.assign(kind=chosen["site"].astype(str).map(kinds))


def _by_family(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of one figure each: a family of windows, with all that has no place on the axis."""
    families = window_families(rows)
    layered = pd.concat([rows.iloc[:0], *families.values()]).index
    for family in families.values():
        yield rows[~rows.index.isin(layered) | rows.index.isin(family.index)]
    if not families:
        yield rows


def _behaviour(facts: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for label, name, shape in (
        ("answered right", "correct", "{:.1%}"),
        ("answer's log-probability (mean, nats)", "logprob", "{:.3f}"),
        ("probability of an answer token (mean)", "probability", "{:.3f}"),
        ("rank of an answer token (mean; 1 = most probable)", "rank", "{:.1f}"),
    ):
        if f"before_{name}" not in facts:  # a dissection of an earlier version
            continue
        before, after = (facts[f"{which}_{name}"].astype(float).mean() for which in ("before", "after"))
        rows.append((label, shape.format(before), shape.format(after)))
    return pd.DataFrame(rows if len(facts) else [], columns=[counted(facts), "before", "after"])


def _controls(controls: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in controls.to_dict("records"):
        outcome = ("passed" if row["passed"] else "failed") if judged(row["passed"]) else "measured"
        numbers = ["–" if pd.isna(row[name]) else f"{row[name]:.6g}" for name in ("expected", "measured", "tolerance")]
        rows.append((row["control"], row["site"], row["metric"], *numbers, outcome))
    return pd.DataFrame(rows, columns=["control", "site", "metric", "expected", "measured", "tolerance", "outcome"])


def _noise(frame: pd.DataFrame, floor: Mapping[str, float]) -> pd.DataFrame:
    """Per metric: the floor, and how many of the frame's rows lie below it."""
    rows = [
        (
            metric_words(metric),
            f"{floor[str(metric)]:.3g}" if metric in floor else "not stated",
            f"{int((~defined).sum())} of {len(defined):,}",
        )
        for metric, defined in frame["defined"].astype(bool).groupby(frame["metric"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["metric", "noise floor", "undefined rows"])


def _changed(comparison: Mapping[str, Any]) -> pd.DataFrame:
    """Relative change of the weights, by role."""
    changes: Mapping[str, Any] = comparison.get("relative_change") or {}
    rows = [
        (role.replace("_", " "), f"{change['mean']:.2%}", f"{change['max']:.2%}") for role, change in changes.items()
    ]
    return pd.DataFrame(rows, columns=["parameters", "relative change, mean of their tensors", "largest"])


def _settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page does not say elsewhere; families of windows by name, not window by window."""
    settings = {key: value for key, value in about.items() if key not in ("comparison", "notes", "versions")}
    if isinstance(about.get("windows"), Mapping):
        settings["windows"] = list(about["windows"])
    return settings
