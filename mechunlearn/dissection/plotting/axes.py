"""The axes of recovery by layer: windows by their layers, what has no layer beside them, and what lies outside."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .styles import GREY, layers, site_words, text

_LOWEST, _HIGHEST = -0.5, 1.25  # the part of the axis that is read
_TICKS = 16  # at most, along the layers


def value_range(values: pd.Series) -> tuple[float, float]:
    """The part of the axis that is shown: what lies further out is marked at its edge."""
    values = values.dropna()
    lowest, highest = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return max(_LOWEST, min(lowest, 0.0) - 0.12), min(_HIGHEST, max(highest, 1.0) + 0.1)


def window_ticks(lines: pd.DataFrame) -> tuple[dict[float, str], int | None]:
    """Each window's layers at its centre, and how many layers a whole window holds, where some are cut off at an edge.

    Those get an asterisk. Windows that all begin with the first layer, or all end with the last, are not cut off:
    they are meant to grow.
    """
    windows = lines.drop_duplicates(["first_layer", "last_layer"]).sort_values("centre")
    first, last = windows["first_layer"], windows["last_layer"]
    widths = last - first + 1
    sliding = first.nunique() > 1 and last.nunique() > 1
    full = int(widths.max()) if sliding and widths.nunique() > 1 else None
    step = -(-len(windows) // _TICKS)
    shown = windows[[place % step == 0 for place in range(len(windows))]]
    ticks = {
        float(row["centre"]): layers(int(row["first_layer"]), int(row["last_layer"]))
        + ("*" if full is not None and row["last_layer"] - row["first_layer"] + 1 < full else "")
        for row in shown.to_dict("records")
    }
    return ticks, full if any(label.endswith("*") for label in ticks.values()) else None


def dress(
    figure: go.Figure,
    lines: pd.DataFrame,
    aside: pd.DataFrame,
    n_layers: int,
    axis: tuple[float, float],
    outside: list[float],
) -> None:
    """Axes, legend and margins; no label is left out where there is little room (they stand aslant)."""
    ticks, full = window_ticks(lines) if len(lines) else ({}, None)
    places = dict(zip(aside["place"], aside["tick"], strict=True))
    title = "layers that are patched" + ("" if full is None else f" (*: fewer than {full}, at the edge of the model)")
    figure.update_xaxes(
        title=title if len(lines) else None,
        tickvals=[*ticks, *places],
        ticktext=[*ticks.values(), *(text(site_words(tick)) for tick in places.values())],
        tickangle=-35,
        range=[
            -0.5 if len(lines) else n_layers - 0.1,
            max([n_layers - 0.5, *(place + 0.6 for place in places)]),
        ],
        showgrid=False,
        zeroline=False,
    )
    if places and len(lines):
        figure.add_vline(x=n_layers - 0.1, line={"color": GREY, "width": 1})
    figure.update_yaxes(range=list(axis), zeroline=False)
    if outside:
        ends = dict.fromkeys(f"{value:.3g}" for value in (min(outside), max(outside)))
        figure.add_annotation(
            text=f"▾▴ {len(outside)} value{'s lie' if len(outside) > 1 else ' lies'} outside this axis"
            f" ({' to '.join(ends)})",
            xref="paper",
            yref="paper",
            x=1,
            y=1,
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11},
        )
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        hovermode="closest",
        height=520,
        margin={"l": 60, "r": 20, "t": 90, "b": 110},
    )
