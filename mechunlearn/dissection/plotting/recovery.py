"""Figures of a dissection, made from its frame or its summary alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ...checking import checked, shown
from ...errors import UserError
from ..metrics import PAPER_METRIC
from ..said import RIGHT, summarise_said
from ..summary import summarise_recovery
from ..windows import Windows, families
from .axes import dress, value_range
from .styles import (
    GREY,
    STATISTICS,
    arrow,
    asked,
    count,
    faint,
    layers,
    metric_words,
    number,
    rows_of,
    site_words,
    style,
    text,
)


@checked
def plot_recovery(
    source: Any,
    metric: str = PAPER_METRIC,
    statistic: str = "mean_of_ratios",
    *,
    direction: str | None = None,
    windows: Windows = None,
) -> go.Figure:
    """Recovery by the centre of the patched window: a line a site with its interval, parameters dashed.

    Whatever has no place on the layer axis (all layers at once; embeddings, final norm, unembedding) stands
    as markers at the right. Values far outside [0, 1] are marked at the edge of the axis and counted in a
    note.

    Args:
        source: a `Dissection`, its frame, or its summary.
        metric: one of the frame's metrics.
        statistic: "mean_of_ratios" (the paper's) or "ratio_of_means".
        direction: "before->after" or "after->before"; None takes the first that the source has.
        windows: those that make the lines, as in `dissect(windows=)`; None takes the widest that the source has.

    Raises:
        UserError: the source has no such metric, statistic, direction or windows.
    """
    if statistic not in STATISTICS:
        raise UserError(f"no statistic {statistic!r}: choose {' or '.join(STATISTICS)}")
    summary = _as_summary(source)
    summary = summary[summary["position"].isna()]
    summary, direction = rows_of(summary, metric, direction)
    figure, named, shown = _curves(summary, statistic, windows)
    donor, recipient = direction.split("->")
    for value, name in ((1, donor), (0, recipient)):
        _level(figure, value, f"{value} = as {name}", above=bool(value))
    figure.update_layout(
        title={
            "text": f"Recovery by layer: {metric_words(metric)}",
            "subtitle": {
                "text": f"{text(named)}, {arrow(direction)}, {STATISTICS[statistic][2]}, {count(shown)}{asked(source)}"
            },
        },
        yaxis_title="recovery",
    )
    return figure


@checked
def plot_answered(
    answers: pd.DataFrame, facts: pd.DataFrame, *, direction: str | None = None, windows: Windows = None
) -> go.Figure:
    """The share of facts answered right by the centre of the patched window, with 95 % intervals.

    Dotted: what the two models answer right by themselves. To be read beside `plot_recovery`: a distance may close
    while the answer stays away.

    Args:
        answers, facts: the frames of a `Dissection`.
        direction, windows: as in `plot_recovery`.

    Raises:
        UserError: there is no such direction, or no such windows.
    """
    summary, direction = rows_of(summarise_said(answers), RIGHT, direction)
    figure, named, _ = _curves(summary, "mean_of_ratios", windows)
    figure.for_each_trace(
        lambda trace: trace.update(hovertemplate=(trace.hovertemplate or "").replace("recovery", "answered right"))
    )
    for which in ("before", "after"):
        share = float(facts.groupby("fact")[f"{which}_correct"].mean().mean())
        _level(figure, share, f"{which}: {share:.0%}", above=which == "before")
    n = int(summary["n"].max())
    figure.update_layout(
        title={
            "text": "Answered right by layer",
            "subtitle": {
                "text": f"{text(named)}, {arrow(direction)}, every answer token the most probable, n = {n} facts"
            },
        },
        yaxis={"title": "share answered right", "tickformat": ".0%"},
    )
    return figure


def _level(figure: go.Figure, value: float | int, words: str, *, above: bool) -> None:
    """A dotted line across, with a word at its left end."""
    figure.add_hline(y=value, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=0,
        y=value,
        xref="paper",
        text=words,
        showarrow=False,
        xanchor="left",
        yanchor="bottom" if above else "top",  # away from the curves between the two
        font={"size": 11, "color": GREY},
    )


def _curves(summary: pd.DataFrame, statistic: str, windows: Windows) -> tuple[go.Figure, str, pd.DataFrame]:
    """A line a site and what has no place on the axis; what the lines' windows are called; and all rows shown."""
    named, lines = _lines(summary, windows)
    n_layers = int(summary["last_layer"].max()) + 1
    aside = _aside(summary, n_layers)
    figure = go.Figure()
    low, high = value_range(pd.concat([lines, aside])[statistic])
    outside: list[float] = []
    for site, rows in lines.groupby("site", sort=False, observed=True):
        rows = rows.sort_values("centre")
        _add_line(figure, str(site), rows, statistic, joined=True)
        outside += _mark_outside(figure, str(site), rows, statistic, low, high)
    shown = set(lines["site"])
    for site, rows in aside.groupby("site", sort=False, observed=True):
        in_legend = bool((rows["tick"] != site).any()) and site not in shown  # else the axis itself names it
        _add_line(figure, str(site), rows, statistic, joined=False, legend=in_legend)
        outside += _mark_outside(figure, str(site), rows, statistic, low, high)
    dress(figure, lines, aside, n_layers, (low, high), outside)
    return figure, named, pd.concat([lines, aside])


def _lines(summary: pd.DataFrame, windows: Windows) -> tuple[str, pd.DataFrame]:
    """What the windows of the lines are called, and their rows."""
    there = window_families(summary)
    if windows is None:
        return next(iter(there.items()), ("no windows", summary.iloc[:0]))
    given = families(windows)
    n_layers = int(summary["last_layer"].max()) + 1
    wanted = {window for family in given for window in family(n_layers)}
    rows = pd.concat([summary.iloc[:0], *there.values()])
    places = zip(rows["first_layer"], rows["last_layer"], strict=True)
    rows = rows[[place in wanted for place in places]]
    named = ", ".join(family.name for family in given)
    aside = zip(summary["first_layer"], summary["last_layer"], strict=True)
    if rows.empty and wanted.isdisjoint(aside):
        raise UserError(f"no windows of {named} here: there are {', '.join(there) or 'none'}")
    return named, rows


def window_families(summary: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by the windows that belong on one line, widest first: "windows of 5 layers", "single layers".

    Windows that touch the first or the last layer are clipped or cumulative and join the widest family. All
    layers at once and sites without layers belong to none.
    """
    n_layers = int(summary["last_layer"].max()) + 1 if len(summary) else 0
    rows = summary[(summary["first_layer"] >= 0) & ~_is_all(summary, n_layers)]
    width = rows["last_layer"] - rows["first_layer"] + 1
    singles = rows["first_layer"][width == 1].nunique() == n_layers
    inner = (rows["first_layer"] > 0) & (rows["last_layer"] < n_layers - 1)
    if n_layers == 1:
        return {}
    family = width.where(inner | (width == 1) & singles)
    widest = family[family > 1].max() if (family > 1).any() else width.max()
    family = family.fillna(widest)
    return {
        "single layers" if value == 1 else f"windows of up to {value:.0f} layers": rows[family == value]
        for value in sorted(family.unique(), reverse=True)
    }


def _as_summary(source: Any) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source if "mean_of_ratios" in source.columns else summarise_recovery(source)
    if not hasattr(source, "summary"):
        raise UserError(f"plot_recovery draws a Dissection, its frame or its summary, not {shown(source)}")
    return source.summary()


def _is_all(summary: pd.DataFrame, n_layers: int) -> pd.Series:
    return (summary["first_layer"] == 0) & (summary["last_layer"] == n_layers - 1)


def _aside(summary: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Rows without a place among the layers, at places right of them (in `centre`), with `tick`."""
    rows = summary[(summary["first_layer"] < 0) | _is_all(summary, n_layers)]
    tick = np.where(rows["first_layer"] < 0, rows["site"], "all layers")
    ticks = sorted(dict.fromkeys(tick), key=lambda name: name != "all layers")
    place = pd.Series([n_layers + 0.5 + ticks.index(name) * 0.9 for name in tick], index=rows.index)
    nth = rows.assign(tick=tick).groupby("tick").cumcount()
    size = rows.assign(tick=tick).groupby("tick")["site"].transform("size")
    spread = (nth - (size - 1) / 2) * (0.6 / size.clip(lower=2))  # side by side, not on top of each other
    return rows.assign(centre=place + spread, tick=tick, place=place)


def _add_line(
    figure: go.Figure, site: str, rows: pd.DataFrame, statistic: str, *, joined: bool, legend: bool = True
) -> None:
    color, symbol = style(site)
    dash = "solid" if rows["kind"].iloc[0] == "activation" else "dash"
    low, high, _ = STATISTICS[statistic]
    bounded = rows[rows[low].notna()]
    if joined and len(bounded):
        figure.add_trace(
            go.Scatter(
                x=[*bounded["centre"], *bounded["centre"][::-1]],
                y=[*bounded[high], *bounded[low][::-1]],
                fill="toself",
                fillcolor=faint(color),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                legendgroup=text(site),
                showlegend=False,
            )
        )
    bars = {} if joined else {"error_y": _bars(rows, statistic)}
    figure.add_trace(
        go.Scatter(
            x=rows["centre"],
            y=rows[statistic],
            name=text(site_words(site)),
            legendgroup=text(site),
            showlegend=legend,
            mode="lines+markers" if joined else "markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={
                "symbol": symbol,
                "size": 7 if joined else 9,
                "color": color,
                "line": {"width": 1.5, "color": color},
            },
            customdata=_told(site, rows, statistic),
            hovertemplate=_HOVER,
            **bars,
        )
    )


_HOVER = (
    "<b>%{customdata[0]}</b><br>layers %{customdata[1]}<br>recovery %{customdata[2]} [%{customdata[3]},"
    " %{customdata[4]}]<br>n = %{customdata[5]}, undefined %{customdata[6]}<extra></extra>"
)


def _told(site: str, rows: pd.DataFrame, statistic: str) -> list[list[Any]]:
    """What a point says when it is hovered: site, window, value, interval, counts."""
    low, high, _ = STATISTICS[statistic]
    return [
        [text(site_words(site)), layers(first, last), number(value), number(lo), number(hi), n, undefined]
        for first, last, value, lo, hi, n, undefined in zip(
            *(rows[c] for c in ("first_layer", "last_layer", statistic, low, high, "n", "n_undefined")), strict=True
        )
    ]


def _bars(rows: pd.DataFrame, statistic: str) -> dict[str, Any]:
    low, high, _ = STATISTICS[statistic]
    return {
        "type": "data",
        "symmetric": False,
        "array": rows[high] - rows[statistic],
        "arrayminus": rows[statistic] - rows[low],
        "width": 3,
        "thickness": 1.2,
    }


def _mark_outside(
    figure: go.Figure, site: str, rows: pd.DataFrame, statistic: str, low: float, high: float
) -> list[float]:
    """Triangles at the edge of the axis where the value itself is beyond it; returns those values."""
    y = rows[statistic]
    beyond = (y < low) | (y > high)
    if beyond.any():
        inset = 0.025 * (high - low)
        figure.add_trace(
            go.Scatter(
                x=rows["centre"][beyond],
                y=np.where(y[beyond] < low, low + inset, high - inset),
                mode="markers",
                marker={
                    "symbol": ["triangle-down" if value < low else "triangle-up" for value in y[beyond]],
                    "color": style(site)[0],
                    "size": 10,
                },
                customdata=_told(site, rows[beyond], statistic),
                hovertemplate=_HOVER.replace("<extra>", "<br>outside the axis<extra>"),
                legendgroup=text(site),
                showlegend=False,
            )
        )
    return [float(value) for value in y[beyond]]
