"""An evaluation in one picture: a row of dots with intervals for every measure, a colour for every group."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .clusters import resampled

COLOURS = {"forget": "#c0392b", "near": "#2471a3", "far": "#1e8449", "text": "#34495e", "all": "#b7950b"}
OTHERS = ("#8e44ad", "#e67e22", "#16a085", "#7f8c8d", "#d98880", "#5d6d7e")
ROW = 64  # pixels


def plot_measures(summary: pd.DataFrame, asked: str) -> go.Figure:
    """Means and intervals, one row a measure with a scale of its own, one colour a group.

    Args:
        summary: what `Evaluation.summary` gives.
        asked: in which phrasings, in words.
    """
    fields = list(summary.columns[: list(summary.columns).index("measure")])
    table = summary.assign(group=summary[fields].fillna("").agg(" ".join, axis=1).str.strip())
    measures, groups = (list(dict.fromkeys(table[name])) for name in ("measure", "group"))
    figure = make_subplots(rows=len(measures), cols=1, vertical_spacing=0.35 / len(measures))
    for place, group in enumerate(groups):
        colour = COLOURS.get(group, OTHERS[place % len(OTHERS)])
        for row, measure in enumerate(measures, start=1):
            found = table[(table["group"] == group) & (table["measure"] == measure)]
            _draw(figure, found, html.escape(group, quote=False), colour, row)
    for row, measure in enumerate(measures, start=1):
        figure.update_yaxes(
            tickvals=[measure], ticktext=[measure.replace("_", " ")], categoryorder="array",
            categoryarray=[measure], row=row, col=1,
        )  # fmt: skip
        shown = table.loc[table["measure"] == measure, ["value", "low", "high"]].to_numpy(dtype=float)
        if ((shown >= 0) & (shown <= 1) | np.isnan(shown)).all():
            figure.update_xaxes(range=[-0.03, 1.03], row=row, col=1)
    _show_each_once(figure)
    figure.update_xaxes(showgrid=True, gridcolor="#eee")
    figure.update_layout(
        title={
            "text": "What the model knows",
            "subtitle": {"text": f"facts {asked}; bars: 95 % intervals over {resampled(summary)}"},
        },
        template="simple_white", width=820, height=150 + ROW * len(measures), margin={"t": 90, "b": 60},
        scattermode="group", legend={"itemsizing": "constant"},
    )  # fmt: skip
    return figure


def _draw(figure: go.Figure, found: pd.DataFrame, name: str, colour: str, row: int) -> None:
    if found.empty:
        return
    figure.add_trace(
        go.Scatter(
            x=found["value"], y=found["measure"], name=name, legendgroup=name, mode="markers", orientation="h",
            marker={"color": colour, "size": 9}, offsetgroup=name,
            error_x={"type": "data", "symmetric": False, "array": found["high"] - found["value"],
                     "arrayminus": found["value"] - found["low"], "thickness": 1.5},
            customdata=found[["low", "high", "n"]],
            hovertemplate="%{y}: %{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<br>n = %{customdata[2]}",
        ),
        row=row, col=1,
    )  # fmt: skip


def _show_each_once(figure: go.Figure) -> None:
    """A group is in the legend once, not once a measure."""
    told: set[str] = set()

    def show(trace: go.Scatter) -> None:
        name = str(trace.name)
        trace.update(showlegend=name not in told)
        told.add(name)

    figure.for_each_trace(show)
