"""The picture of the README: what `mechunlearn demo` found, drawn from its folder.

    make demo && python analyses/demo_picture.py

Left, what patches put back: of each window of layers how much is answered right when the model after unlearning is
given the states, or the parameters, of the model before. Right, what an attack brings back: three folds of what was
forgotten are learned again and the fourth is asked, of both models and of the twin that never knew.
"""  # fmt: skip

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechunlearn.attacks import Attacks
from mechunlearn.dissection import Dissection
from mechunlearn.dissection.plotting.axes import window_ticks
from mechunlearn.dissection.plotting.recovery import window_families
from mechunlearn.dissection.plotting.styles import site_words, style
from mechunlearn.dissection.said import summarise_said

FILE = Path(__file__).parent / "results" / "demo.png"
DISSECTED = "npo"
SITES = ("mlp_coefficients+attention_output", "mlp_coefficients", "attention_output", "attention", "value_vectors")
ATTACKED = {"gradient_difference": ("gradient difference", "#E69F00"), "npo": ("NPO", "#D55E00")}
TWIN = "#0072B2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    draw(given.folder).write_image(given.out, width=1100, height=430, scale=2)


def draw(demo: Path) -> go.Figure:
    """Both panels."""
    figure = make_subplots(
        cols=2, column_widths=[0.58, 0.42], horizontal_spacing=0.1,
        subplot_titles=["put back by patches: NPO", "brought back by relearning other facts"],
    )  # fmt: skip
    _patched(figure, Dissection.load(demo / DISSECTED / "dissection"))
    for name, (words, color) in ATTACKED.items():
        curve = Attacks.load(demo / name / "attacks").curve()
        _relearned(figure, curve[curve["model"] == "after"], words, {"color": color, "width": 2})
    twin = Attacks.load(demo / DISSECTED / "attacks").curve().query("model == 'never-knew'")
    _relearned(figure, twin, "the twin that never knew", {"color": TWIN, "width": 2, "dash": "dash"})
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(title_text="forget facts answered right", col=1)
    figure.update_xaxes(title_text="epochs of relearning", dtick=1, col=2)
    figure.update_layout(template="simple_white", margin={"t": 40, "b": 60, "l": 70, "r": 210})
    return figure


def _patched(figure: go.Figure, found: Dissection) -> None:
    summary = summarise_said(found.answers.assign(kind="activation"))
    lines = next(iter(window_families(summary).values()))
    for site in SITES:
        rows = lines[lines["site"] == site].sort_values("centre")
        color, symbol = style(site)
        line = {"color": color, "width": 2, "dash": "dash" if symbol.endswith("open") else "solid"}
        figure.add_scatter(
            x=rows["centre"], y=rows["mean_of_ratios"], name=site_words(site), mode="lines+markers", line=line,
            marker={"color": color, "symbol": symbol, "size": 8}, error_y=_bars(rows, "mean_of_ratios", "mean_"),
            col=1, row=1,
        )  # fmt: skip
    for which in ("before", "after"):
        share = float(found.facts.groupby("fact")[f"{which}_correct"].mean().mean())
        figure.add_hline(y=share, line={"color": "#8A8A8A", "width": 1, "dash": "dot"}, col=1, row=1)  # pyright: ignore[reportArgumentType]
    ticks, _ = window_ticks(lines)
    labels = [label.rstrip("*") for label in ticks.values()]
    figure.update_xaxes(title_text="layers that are patched", tickvals=list(ticks), ticktext=labels, col=1)


def _relearned(figure: go.Figure, rows: pd.DataFrame, name: str, line: dict[str, object]) -> None:
    figure.add_scatter(
        x=rows["step"], y=rows["value"], name=name, mode="lines+markers", line=line,
        error_y=_bars(rows, "value", ""), col=2, row=1,
    )  # fmt: skip


def _bars(rows: pd.DataFrame, value: str, prefix: str) -> dict[str, object]:
    high, low = rows[f"{prefix}high"], rows[f"{prefix}low"]
    return {"array": high - rows[value], "arrayminus": rows[value] - low, "thickness": 1, "width": 3}


if __name__ == "__main__":
    main()
