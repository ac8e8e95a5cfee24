"""Attacks in pictures: what came back, and what a model that never knew gives under the same attack."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go

from ..evaluation import resampled
from ..showing import short
from .summary import curve, summarise_attacks

AFTER, TWIN, START = "#D55E00", "#0072B2", "#8A8A8A"
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up")  # the next one when the colours are used up
WIDTH = 44  # characters of an attack and its setting on the axis
NAMES = {
    "correct": "recall of forget facts", "probability": "probability of an answer token",
    "token_recall": "share of answer tokens right",
}  # fmt: skip


def plot_attacks(frame: pd.DataFrame, measure: str = "correct", *, by: str = "attack") -> go.Figure:
    """One line an attack: the attacked model and the never-knew model, with intervals; a tick where it started."""
    summary = summarise_attacks(frame, measure, by=by)[::-1]  # plotly draws from below
    shown = summary["setting"] if by == "setting" else [""] * len(summary)
    names = [_name(str(attack), str(setting)) for attack, setting in zip(summary["attack"], shown, strict=True)]
    figure = go.Figure()
    for model, value, (low, high), color, symbol in (
        ("never knew", "never_knew", ("never_knew_low", "never_knew_high"), TWIN, "diamond"),
        ("after unlearning", "value", ("low", "high"), AFTER, "circle"),
    ):
        if summary[value].notna().any():
            figure.add_scatter(
                x=summary[value], y=names, mode="markers", name=f"{model}, attacked",
                marker={"color": color, "symbol": symbol, "size": 10},
                error_x={"type": "data", "symmetric": False, "array": summary[high] - summary[value],
                         "arrayminus": summary[value] - summary[low], "thickness": 1.5},
                customdata=summary[["setting", "n", low, high]].map(_short),
                hovertemplate="%{y}: %{x:.3f} [%{customdata[2]}, %{customdata[3]}]<br>"
                "%{customdata[0]}<br>n = %{customdata[1]} facts",
            )  # fmt: skip
    tick = {"symbol": "line-ns", "size": 16, "line": {"color": START, "width": 2}}
    figure.add_scatter(
        x=summary["start"], y=names, mode="markers", name="after unlearning, unattacked", marker=tick,
        customdata=summary["n"], hovertemplate="%{y}: %{x:.3f}<br>n = %{customdata} facts",
    )  # fmt: skip
    figure.update_xaxes(title_text=NAMES[measure], range=[-0.03, 1.03], showgrid=True, gridcolor="#eee")
    figure.update_layout(
        title={
            "text": "What comes back under attack",
            "subtitle": {
                "text": f"strongest {'setting and step' if by == 'attack' else 'step'} of each; "
                f"bars: 95 % intervals over {resampled(summary)}"
            },
        },
        template="simple_white", width=820, height=240 + 34 * len(names), margin={"t": 90, "l": 10, "b": 110},
        legend={"orientation": "h", "xref": "container", "x": 0.5, "xanchor": "center",
                "yref": "container", "y": 0.01, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_yaxes(automargin=True, tickvals=names, ticktext=[short(name, WIDTH) for name in names])
    return figure


def plot_curve(frame: pd.DataFrame, measure: str = "correct") -> go.Figure:
    """Recall by step of the attack, one colour a setting; the never-knew model's line is dashed."""
    found = curve(frame, measure)
    figure = go.Figure()
    keys = list(dict.fromkeys(zip(found["attack"], found["setting"], strict=True)))
    for place, (attack, setting) in enumerate(keys):
        for model in ("after", "never-knew"):
            rows = found[(found["attack"] == attack) & (found["setting"] == setting) & (found["model"] == model)]
            if len(rows):
                dash = "solid" if model == "after" else "dash"
                name = _name(attack, setting) + ("" if model == "after" else ", never knew")
                figure.add_scatter(
                    x=rows["step"], y=rows["value"], name=name, mode="lines+markers", legendgroup=f"{attack} {setting}",
                    showlegend=model == "after", line={"color": PALETTE[place % len(PALETTE)], "dash": dash},
                    marker={"symbol": SYMBOLS[place // len(PALETTE) % len(SYMBOLS)], "size": 7},
                    customdata=rows[["low", "high", "n"]],
                    hovertemplate="step %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>"
                    "n = %{customdata[2]} facts",
                )  # fmt: skip
    told = f"dashed: the model that never knew; in brackets 95 % intervals over {resampled(found)}"
    below = 30 + 20 * len(keys)  # pixels of the legend, a line a setting
    figure.update_yaxes(title_text=NAMES[measure], range=[-0.03, 1.03])
    figure.update_xaxes(title_text="step of the attack (epochs)", dtick=1)
    figure.update_layout(
        title={"text": "Relearning, step by step", "subtitle": {"text": told}},
        template="simple_white", width=820, height=440 + below, margin={"t": 90, "b": 70 + below},
        legend={"orientation": "v", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "maxheight": below,
                "tracegroupgap": 0},
    )  # fmt: skip
    return figure


def _name(attack: str, setting: str) -> str:
    """Plotly reads a little HTML in its texts; settings may hold what a user wrote."""
    return html.escape(f"{attack}: {setting}" if setting else attack, quote=False)


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value), quote=False)
