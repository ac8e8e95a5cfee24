"""A run in one picture: what was forgotten above, what it cost below."""

from __future__ import annotations

from typing import Any

import pandas as pd
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

COLOURS = {"forget": "#c0392b", "near": "#2471a3", "far": "#1e8449", "retain": "#2471a3"}


def plot(frame: pd.DataFrame, about: dict[str, Any]) -> Figure:
    """Recall by step, and KL on general text where it was measured, with the budget as a line.

    Evaluations outside the budget, from which the run went back, are open circles.
    """
    has_text = "text_kl" in frame
    titles = ["Recall, phrasings held out", "KL to the start on general text, nats a token"]
    rows = 2 if has_text else 1
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=titles[:rows])
    for column in [name for name in frame.columns if name.endswith("_recall")]:
        name = column.removesuffix("_recall")
        style = {"color": COLOURS.get(name), "dash": "dot" if name.startswith("fold_") else "solid"}
        figure.add_trace(_line(frame, column, name.replace("_", " "), style), row=1, col=1)
    if has_text:
        figure.add_trace(_line(frame, "text_kl", "text KL", {"color": "#7d3c98"}), row=2, col=1)
        budget = (about["settings"].get("budget") or {}).get("kl")
        if budget is not None:
            figure.add_hline(y=budget, line_dash="dash", line_color="#888", annotation_text="budget", row=2, col=1)  # pyright: ignore[reportArgumentType]
    for stage in sorted(frame["stage"].unique())[1:]:
        figure.add_vline(x=frame.loc[frame["stage"] == stage, "step"].min(), line_color="#bbb", line_width=1)
    figure.update_yaxes(range=[-0.03, 1.03], row=1, col=1)
    figure.update_xaxes(title_text="step", row=rows, col=1)
    figure.update_layout(
        title=f"{about['settings']['method']}: {about['stopped']}",
        template="simple_white",
        height=300 * rows,
        width=820,
    )
    return figure


def _line(frame: pd.DataFrame, column: str, name: str, style: dict[str, Any]) -> Scatter:
    symbols = ["circle" if inside else "circle-open" for inside in frame["inside"]]
    return Scatter(
        x=frame["step"], y=frame[column], name=name, mode="lines+markers", line=style, marker={"symbol": symbols}
    )
