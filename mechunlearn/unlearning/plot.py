"""A run in one picture: what was forgotten above, what it cost below."""

from __future__ import annotations

from typing import Any

import pandas as pd
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from ..facts import PROMPTS

COLOURS = {"forget": "#c0392b", "near": "#2471a3", "far": "#1e8449", "retain": "#b7950b"}
FOLDS = ("#e67e22", "#8e44ad", "#16a085", "#7f8c8d", "#d98880", "#5d6d7e")
TEXT = "#34495e"
SMALL = {"size": 11, "color": "#777"}
# What is drawn of general text: column, name of the limit, title; the first that the budget limits, else the first.
COSTS = (
    ("text_kl", "kl", "KL to the start on general text, nats a token"),
    ("text_loss", "loss", "Loss on general text, nats a token"),
)


def plot(frame: pd.DataFrame, about: dict[str, Any]) -> Figure:
    """Recall by step, and disruption of general text where it was measured, with the limits of the budget as lines.

    Lines join the states that were kept. Evaluations outside the budget, from which the run went back, are crosses.
    """
    budget = about["settings"].get("budget") or {}
    titles = [f"Recall, {PROMPTS[about['settings']['prompts']]}"]
    cost = None
    if "text_kl" in frame:
        cost = next((cost for cost in COSTS if budget.get(cost[1]) is not None), COSTS[0])
        titles.append(cost[2])
    figure = make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=titles,
        row_heights=[0.58, 0.42][: len(titles)],
    )  # fmt: skip
    for column in [str(name) for name in frame.columns if str(name).endswith("_recall")]:
        name = column.removesuffix("_recall")
        _draw(figure, frame, column, name.replace("_token", ", tokens right").replace("_", " "), _style(name), row=1)
    for role in ("near", "far"):
        _limit(figure, budget.get(role), f"least {role} recall", row=1)
    if cost is not None:
        level = _level(budget.get(cost[1]), cost[0], frame)
        shown = _range(frame, cost[0], level)
        _draw(figure, frame, cost[0], "general text", {"color": TEXT, "width": 2}, row=2, shown=shown)
        _limit(figure, level, "budget", row=2)
        figure.update_yaxes(range=shown, row=2, col=1)
    for stage in sorted(frame["stage"].unique())[1:]:
        first = frame.loc[frame["stage"] == stage, "step"].min()
        figure.add_vline(x=first, line_color="#999", line_width=1, line_dash="dot")
        figure.add_annotation(
            x=first, y=0.04, yref="y domain", yanchor="bottom", xanchor="left", showarrow=False,
            text=f"stage {stage}", font=SMALL,
        )  # fmt: skip
    if not frame["inside"].all():
        crosses = {"symbol": "x-thin", "size": 8, "line": {"color": "#555", "width": 1.5}}
        figure.add_trace(Scatter(x=[None], y=[None], name="outside the budget", mode="markers", marker=crosses))
    figure.for_each_annotation(
        lambda note: note.update(x=0, xanchor="left", font={"size": 13}) if note.text in titles else None
    )
    figure.update_yaxes(range=[-0.04, 1.04], row=1, col=1)
    figure.update_xaxes(title_text="step", row=len(titles), col=1)
    figure.update_layout(
        title={"text": f"Unlearning by {about['settings']['method']}", "subtitle": {"text": _ended(about)},
               "font": {"size": 16}},
        template="simple_white", height=180 + 200 * len(titles), width=820, margin={"t": 100},
        legend={"itemsizing": "constant"},
    )  # fmt: skip
    return figure


def _ended(about: dict[str, Any]) -> str:
    """Why the run ended."""
    reasons = str(about["stopped"]).split("; stage ")
    return reasons[0] if len(reasons) == 1 else f"{len(reasons)} stages; the last: {reasons[-1].split(': ', 1)[-1]}"


def _style(name: str) -> dict[str, Any]:
    if name.startswith("fold_"):
        return {"color": FOLDS[(int(name.removeprefix("fold_")) - 1) % len(FOLDS)], "dash": "dot", "width": 1.5}
    if name.endswith("_token"):  # of long answers: the share of answer tokens that are right
        return _style(name.removesuffix("_token")) | {"dash": "dash", "width": 1.5}
    return {"color": COLOURS[name], "width": 2.5 if name == "forget" else 2}


def _draw(
    figure: Figure,
    frame: pd.DataFrame,
    column: str,
    name: str,
    style: dict[str, Any],
    row: int,
    shown: tuple[float, float] | None = None,
) -> None:
    kept, left = frame[frame["inside"]], frame[~frame["inside"]]
    top = float("inf") if shown is None else shown[1] - 0.04 * (shown[1] - shown[0])
    figure.add_trace(
        Scatter(
            x=kept["step"], y=kept[column], name=name, legendgroup=name, mode="lines+markers", line=style,
            marker={"size": 6}, showlegend=row == 1, hovertemplate="step %{x}: %{y:.4g}",
        ),
        row=row, col=1,
    )  # fmt: skip
    if len(left):
        figure.add_trace(
            Scatter(
                x=left["step"], y=left[column].clip(upper=top),
                name=f"{name}, outside the budget", legendgroup=name, mode="markers",
                marker={"symbol": "x-thin", "size": 8, "line": {"color": style["color"], "width": 1.5}},
                showlegend=False, customdata=left[column],
                hovertext=[f"step size × {scale:g}" for scale in left["scale"]],
                hovertemplate="step %{x}: %{customdata:.4g}<br>%{hovertext}",
            ),
            row=row, col=1,
        )  # fmt: skip


def _level(limit: float | None, column: str, frame: pd.DataFrame) -> float | None:
    """The limit in the units of the axis: that of the loss is a rise relative to the start."""
    rise = column == "text_loss"
    return limit if limit is None or not rise else float(frame[column].iloc[0]) * (1 + limit)


def _limit(figure: Figure, level: float | None, name: str, row: int) -> None:
    if level is not None:
        figure.add_hline(
            y=level, line_dash="dash", line_color="#555", line_width=1.5, row=row, col=1,  # pyright: ignore[reportArgumentType]
            annotation={"text": name, "font": SMALL}, annotation_position="bottom right" if row == 1 else "top left",
        )  # fmt: skip


def _range(frame: pd.DataFrame, column: str, level: float | None) -> tuple[float, float] | None:
    """Show what is kept at full height; what lies far outside the budget is drawn at the upper edge."""
    if level is None or frame["inside"].all():
        return None
    kept = frame.loc[frame["inside"], column]
    low, high = min(kept.min(), level), max(kept.max(), level)
    span = (high - low) or 1.0
    return low - 0.06 * span, high + 0.6 * span
