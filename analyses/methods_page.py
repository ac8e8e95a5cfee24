"""The page of `tune_methods.py`: what each method reached under one budget."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from studies import over_seeds

MEASURES = {
    "forget_recall": "forget",
    "near_recall": "near",
    "far_recall": "far",
    "text_kl": "text KL",
    "domain_text_kl": "KL, text on the domain",
    "seconds": "seconds",
}
REACHED = {"forget_recall": 0.05, "near_recall": 0.9, "text_kl": 0.01}


def write(runs: pd.DataFrame, why: dict[str, str], folder: Path) -> None:
    """`methods.md` with its picture. `runs` holds a row a run; `chosen` marks those that the main table is about."""
    chosen = runs[runs["chosen"]]
    asked = (
        (chosen["forget_recall"] <= REACHED["forget_recall"])
        & (chosen["near_recall"] >= REACHED["near_recall"])
        & (chosen["text_kl"] <= REACHED["text_kl"])
    )
    rows = []
    for name, part in chosen.assign(reached=asked).groupby("method", sort=False):
        row = {"method": f"`{name}`", "reached": f"{part['reached'].sum()} of {len(part)}"}
        row |= {title: _cell(part[column]) for column, title in MEASURES.items()}
        rows.append(row | {"mean": part["forget_recall"].mean()})
    table = pd.DataFrame(rows).sort_values("mean").drop(columns="mean")
    settings = chosen.drop_duplicates("method")[["method", "settings", "stopped"]]
    settings = settings.assign(why=[why.get(name, "") for name in settings["method"]])
    searched = runs[runs["seed"] == 0].sort_values(["method", "forget_recall"])
    searched = searched[["method", "settings", "chosen", "forget_recall", "near_recall", "text_kl", "step", "stopped"]]
    _picture(chosen).write_image(folder / "methods.png", scale=2)
    (folder / "methods.md").write_text(
        PAGE.format(
            table=table.to_markdown(index=False),
            settings=settings.to_markdown(index=False),
            searched=searched.round(4).to_markdown(index=False),
        ),
        encoding="utf-8",
    )


def _cell(values: pd.Series) -> str:
    return over_seeds(values, 0 if values.name == "seconds" else 4 if str(values.name).endswith("kl") else 3)


def _picture(chosen: pd.DataFrame) -> go.Figure:
    """Forget recall against what it cost, a point a seed, the name at a method's mean."""
    figure = go.Figure()
    figure.add_shape(type="rect", x0=0, x1=0.01, y0=-0.02, y1=0.05, fillcolor="#d5f5e3", line_width=0, layer="below")
    means = chosen.groupby("method")[["text_kl", "forget_recall"]].mean().sort_values("forget_recall")
    for place, (name, mean) in enumerate(means.iterrows()):
        part = chosen[chosen["method"] == name]
        colour = f"hsl({360 * place / len(means):.0f},60%,42%)"
        figure.add_scatter(
            x=part["text_kl"], y=part["forget_recall"], mode="markers", marker={"color": colour, "size": 6},
            opacity=0.5, showlegend=False,
        )  # fmt: skip
        figure.add_scatter(
            x=[mean["text_kl"]], y=[mean["forget_recall"]], mode="markers",
            name=f"{name} ({mean['forget_recall']:.2f})",
            marker={"color": colour, "size": 11, "symbol": ["circle", "square", "diamond", "cross"][place % 4]},
        )  # fmt: skip
    figure.add_vline(x=0.01, line_dash="dash", line_color="#888", line_width=1.5, annotation_text="budget")
    figure.update_xaxes(title="KL to the start on general text, nats a token", rangemode="tozero")
    figure.update_yaxes(title="recall on forget facts, phrasings held out", range=[-0.02, 1.02])
    return figure.update_layout(
        template="simple_white", width=980, height=620, title="What each method reaches under one budget",
        legend={"title": "method (mean recall)", "font": {"size": 11}},
    )  # fmt: skip


PAGE = """# Every method under one budget

The embedded organism, forget set `domain` (320 facts of alchemy), 16 rows of each kind a step, AdamW with a linearly
falling rate where the method does not set its own step. Budget: KL at most 0.01 nats a token on held-out general text,
recall on near facts at least 90 %. A run ends at 5 % recall on the forget facts, at its budget (after three halvings of
the step size), or after its steps. Recall is on the two phrasings never trained; n = 640 forget, 480 near and
1,280 far rows. Mean over three seeds [smallest, largest]. Seconds: one thread of a shared machine,
evaluations included.

*General text* leaves out passages that speak of the domain itself ("The raw matter of Vatethil is mercurine."); the
divergence on those stands beside. For scale: the twin that never knew the facts diverges from the organism by 0.12 nats
on general text and 0.19 on text about the domain, twelve times the budget.

"Reached" tells how many seeds there are. What was searched before the first complete pass ran with an earlier order of
batches, and only guided the choice of settings.

![Forget recall against text KL](methods.png)

{table}

*Reached*: seeds with forget recall ≤ 5 %, near ≥ 90 % and text KL ≤ 0.01 at once.

## Chosen settings, and why some fall short

{settings}

## Everything that was searched (seed 0)

{searched}

Made by `python analyses/tune_methods.py --search` and `python analyses/tune_methods.py`; all rows:
[methods.parquet](methods.parquet).
"""
