"""Dissections and unlearning runs on the page: texts, rows and figures, all plain text that the template escapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..dissection.plots import plot_positions, plot_recovery, window_families
from ..dissection.summary import summarise
from ..unlearning.describe import kept_row
from ..unlearning.plot import plot
from .folders import DissectionRun, UnlearningRun
from .peaks import Peak, judged
from .pieces import Cell, Figure, flat, spaced
from .words import Words

SHOWN_FACTS = 50


@dataclass(frozen=True)
class DissectionSection:
    """One dissection on the page."""

    name: str
    anchor: str
    about: dict[str, Any]
    words: Words
    figures: list[Figure]
    more_figures: list[Figure]
    behaviour: list[tuple[str, str, str]]
    controls: list[dict[str, Any]]
    noise: list[tuple[str, str, int, int]]
    changed: list[tuple[str, str]]
    facts: list[dict[str, Any]]
    n_facts: int
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]] = field(default_factory=list)

    @property
    def n_passed(self) -> int:
        return sum(row["outcome"] == "passed" for row in self.controls)

    @property
    def n_failed(self) -> int:
        return sum(row["outcome"] == "failed" for row in self.controls)

    @property
    def peaks(self) -> tuple[Peak, ...]:
        return self.words.peaks


@dataclass(frozen=True)
class UnlearningSection:
    """One unlearning run on the page."""

    name: str
    anchor: str
    figures: list[Figure]
    ends: list[tuple[str, str, str]]
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def dissection_section(run: DissectionRun, anchor: str) -> DissectionSection:
    """Everything the page says about one dissection."""
    summary = summarise(run.frame)
    about = run.run["about"]
    figures, more = _figures(run.frame, summary)
    comparison = about.get("comparison") or {}
    changes: Mapping[str, Any] = comparison.get("relative_change") or {}
    return DissectionSection(
        name=run.name,
        anchor=anchor,
        about=about,
        words=Words.of(summary, controls=run.controls, facts=run.facts),
        figures=figures,
        more_figures=more,
        behaviour=_behaviour(run.facts),
        controls=_controls(run.controls),
        noise=_noise(run.frame, about.get("noise_floor") or {}),
        changed=[
            (tensor, f"{changes[tensor]:.2%}" if tensor in changes else "") for tensor in comparison.get("names") or []
        ],
        facts=_facts(run.facts),
        n_facts=len(run.facts),
        settings=flat(_settings(about)),
        versions=flat(about.get("versions") or run.run.get("versions") or {}),
    )


def unlearning_section(run: UnlearningRun, anchor: str) -> UnlearningSection:
    """Everything the page says about one unlearning run."""
    first, last = run.frame.iloc[0], kept_row(run.frame, run.run["about"])
    columns = [name for name in run.frame.columns if name.endswith(("_recall", "_probability"))]
    columns += [name for name in ("text_loss", "text_kl") if name in run.frame.columns]
    return UnlearningSection(
        name=run.name,
        anchor=anchor,
        figures=[Figure.of(plot(run.frame, run.run["about"]))],
        ends=[(spaced(name), _measured(name, first[name]), _measured(name, last[name])) for name in columns],
        settings=flat((run.run.get("settings") or {}) | (run.run.get("about") or {})),
        versions=flat(run.run.get("versions") or {}),
    )


def _figures(frame: pd.DataFrame, summary: pd.DataFrame) -> tuple[list[Figure], list[Figure]]:
    """The figures to see at once, and those for who wants more: other metrics, the other statistic."""
    shown, more = [], []
    whole = summary[summary["position"].isna()]
    metrics = list(dict.fromkeys(whole["metric"]))
    first = "mse" if "mse" in metrics else next(iter(metrics), None)
    for direction in dict.fromkeys(whole["direction"]):
        rows = whole[whole["direction"] == direction]
        for family in list(window_families(rows)) or [None]:
            for metric in metrics:
                figure = Figure.of(plot_recovery(rows, metric, direction=direction, windows=family))
                (shown if metric == first else more).append(figure)
            if first is not None:
                other = plot_recovery(rows, first, "ratio_of_means", direction=direction, windows=family)
                more.append(Figure.of(other))
    maps = frame[frame["position"].notna()]
    for direction, metric in dict.fromkeys(zip(maps["direction"], maps["metric"], strict=True)):
        figure = Figure.of(plot_positions(maps, metric, direction=direction))
        (shown if metric == "mse" else more).append(figure)
    return shown, more


def _behaviour(facts: pd.DataFrame) -> list[tuple[str, str, str]]:
    if facts.empty:
        return []
    rows = []
    for label, name, shape in (
        ("answered right", "correct", "{:.1%}"),
        ("answer's log-probability (mean, nats)", "logprob", "{:.3f}"),
    ):
        before, after = (facts[f"{which}_{name}"].astype(float).mean() for which in ("before", "after"))
        rows.append((label, shape.format(before), shape.format(after)))
    return rows


def _controls(controls: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for row in controls.to_dict("records"):
        outcome = ("passed" if row["passed"] else "failed") if judged(row["passed"]) else "measured"
        numbers = {
            name: "–" if pd.isna(row[name]) else f"{row[name]:.6g}" for name in ("expected", "measured", "tolerance")
        }
        rows.append({**row, **numbers, "outcome": outcome})
    return rows


def _noise(frame: pd.DataFrame, floor: Mapping[str, float]) -> list[tuple[str, str, int, int]]:
    """Per metric: the floor, and how many of the frame's rows lie below it."""
    return [
        (
            str(metric),
            f"{floor[str(metric)]:.3g}" if metric in floor else "not stated",
            int((~rows).sum()),
            len(rows),
        )
        for metric, rows in frame["defined"].astype(bool).groupby(frame["metric"], sort=False)
    ]


def _facts(facts: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            **{name: Cell.of(row[name]) for name in ("fact", "prompt", "answer")},
            **{f"{which}_answer": Cell.of(row[f"{which}_answer"]) for which in ("before", "after")},
            **{f"{which}_correct": bool(row[f"{which}_correct"]) for which in ("before", "after")},
        }
        for row in facts.head(SHOWN_FACTS).to_dict("records")
    ]


def _settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page does not say elsewhere; families of windows by name, not window by window."""
    settings = {key: value for key, value in about.items() if key not in ("comparison", "versions")}
    if isinstance(about.get("windows"), Mapping):
        settings["windows"] = list(about["windows"])
    return settings


def _measured(name: str, value: float) -> str:
    return f"{value:.1%}" if name.endswith("_recall") else f"{value:.3f}"
