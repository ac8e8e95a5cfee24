"""Evaluations on the page and in the terminal: measures down, groups across."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .folders import EvaluationRun
from .pieces import flat


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation on the page."""

    name: str
    anchor: str
    model: str
    before: str | None
    groups: list[str]
    rows: list[tuple[str, str, str, list[str]]]  # measure, what it is, which way it points, a cell a group
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def evaluation_section(run: EvaluationRun, anchor: str) -> EvaluationSection:
    """Everything the page says about one evaluation."""
    about = dict(run.run["about"])
    measures = about.pop("measures", None) or {}
    table = across(run.frame)
    settings = {key: value for key, value in (run.run.get("settings") or {}).items() if key not in about}
    return EvaluationSection(
        name=run.name,
        anchor=anchor,
        model=str(about.get("model") or "a model"),
        before=about.get("before"),
        groups=[str(group) for group in table.columns],
        rows=[
            (
                str(measure),
                str(measures.get(measure, {}).get("what", "")),
                str(measures.get(measure, {}).get("direction", "")),
                [str(cell) for cell in cells],
            )
            for measure, cells in zip(table.index, table.to_numpy(), strict=True)
        ],
        settings=flat(about | settings),
        versions=flat(run.run.get("versions") or {}),
    )


def across(table: pd.DataFrame) -> pd.DataFrame:
    """What `evaluate` gives, with a row a measure and a column a group: "value [low, high] n"."""
    groups = list(table.columns[: list(table.columns).index("measure")])
    cells = table.assign(
        group=table[groups].fillna("").agg(" ".join, axis=1).str.strip(),
        cell=[f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.n}" for row in table.itertuples()],
    )
    order = {name: list(dict.fromkeys(cells[name])) for name in ("measure", "group")}
    wide = cells.pivot(index="measure", columns="group", values="cell").fillna("")
    return wide.loc[order["measure"], order["group"]].rename_axis(index=None, columns="mean [95 %] n")
