"""The curve of an unlearning run: what the model knows, and what it costs elsewhere, by step."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

_COLOURS = {"forget": "#D55E00", "near": "#0072B2", "far": "#009E73", "retain": "#56B4E9"}


def plot_recall(frame: pd.DataFrame) -> go.Figure:
    """Share of facts answered right, by step: forget, and what should stay."""
    figure = go.Figure()
    for column in [name for name in frame.columns if name.endswith("_recall")]:
        group = column.removesuffix("_recall")
        figure.add_trace(
            go.Scatter(
                x=frame["step"],
                y=frame[column],
                name=group,
                mode="lines+markers",
                line={
                    "color": _COLOURS.get(group, "#8A8A8A"),
                    "dash": "solid" if group == "forget" else "dash",
                },
                hovertemplate=f"{group}, step %{{x}}: %{{y:.1%}}<extra></extra>",
            )
        )
    figure.update_yaxes(range=[-0.04, 1.06], tickformat=".0%", title="answered right")
    return _dressed(figure, "Recall while unlearning")


def plot_text(frame: pd.DataFrame) -> go.Figure | None:
    """Loss and KL divergence on general text, by step; None where no text was given."""
    names = {
        "text_loss": ("loss on general text", "#CC79A7"),
        "text_kl": ("KL from the model before", "#E69F00"),
    }
    shown = {name: names[name] for name in names if name in frame.columns and frame[name].notna().any()}
    if not shown:
        return None
    figure = go.Figure(
        [
            go.Scatter(
                x=frame["step"],
                y=frame[column],
                name=label,
                mode="lines+markers",
                line={"color": color},
                hovertemplate=f"{label}, step %{{x}}: %{{y:.3f}} nats<extra></extra>",
            )
            for column, (label, color) in shown.items()
        ]
    )
    figure.update_yaxes(rangemode="tozero", title="nats a token")
    return _dressed(figure, "What it costs on general text")


def _dressed(figure: go.Figure, title: str) -> go.Figure:
    figure.update_xaxes(title="step", zeroline=False)
    return figure.update_layout(
        title=title,
        template="plotly_white",
        height=360,
        showlegend=True,
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        margin={"l": 60, "r": 20, "t": 60, "b": 90},
    )
