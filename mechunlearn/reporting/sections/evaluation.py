"""Evaluations on the page and in the terminal: measures down, groups across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...evaluation import resampled
from ...facts import PROMPTS
from ..elements import flat, spaced
from ..folders import EvaluationFiles


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation on the page."""

    name: str
    anchor: str
    model: str
    before: str | None
    asked: str  # in which phrasings, in words
    warnings: tuple[str, ...]
    table: pd.DataFrame  # measure, a column a group, and how to read it, as texts
    over: str  # what intervals resample
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def evaluation_section(run: EvaluationFiles, anchor: str) -> EvaluationSection:
    """Everything the page says about one evaluation."""
    about = dict(run.result.about)
    measures, settings = about.pop("measures", None) or {}, about.pop("settings")
    notes = about.pop("notes", ())
    summary = run.result.summary()
    wide = across(summary)
    meaning = [_meaning(measures.get(measure, {})) for measure in wide.index]
    table = wide.assign(**{"what it is": meaning}).rename_axis(index="measure").reset_index()
    return EvaluationSection(
        name=run.label,
        anchor=anchor,
        model=str(about.get("model") or "a model"),
        before=about.get("before"),
        table=table.assign(measure=table["measure"].map(spaced)).map(str),
        asked=PROMPTS[settings["prompts"]],
        warnings=tuple(f"{note}." for note in notes),
        over=resampled(summary),
        settings=flat(about | {key: value for key, value in settings.items() if key not in about}),
        versions=flat(run.run.get("versions") or {}),
    )


def _meaning(known: Mapping[str, Any]) -> str:
    """What a measure is, and which way it points."""
    return "; ".join(str(known[key]) for key in ("what", "direction") if known.get(key))


def across(table: pd.DataFrame) -> pd.DataFrame:
    """What `Evaluation.summary` gives, with a row a measure and a column a group: "value [low, high] n"."""
    groups = list(table.columns[: list(table.columns).index("measure")])
    cells = table.assign(
        group=table[groups].fillna("").agg(" ".join, axis=1).str.strip(),
        cell=[f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.n}" for row in table.itertuples()],
    )
    order = {name: list(dict.fromkeys(cells[name])) for name in ("measure", "group")}
    wide = cells.pivot(index="measure", columns="group", values="cell").fillna("")
    return wide.loc[order["measure"], order["group"]].rename_axis(
        index=None, columns=f"mean [95 % over {resampled(table)}] n"
    )
