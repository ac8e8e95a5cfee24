"""Figures of what changed in the weights, made from the frames of `changes` alone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from ...checking import checked
from ...dissection.plotting.styles import GREY, style, text
from ...errors import UserError, check_whole
from ..weights import COLUMNS, SPECTRUM

WORDS = {
    "change": "‖ΔW‖ (Frobenius)",
    "relative_change": "‖ΔW‖ / ‖W‖ (Frobenius)",
    "spectral_norm": "largest singular value of ΔW",
    "relative_spectral_norm": "largest singular value of ΔW / that of W",
    "stable_rank": "stable rank of ΔW",
    "effective_rank": "effective rank of ΔW",
}
SCALE = "Viridis"
DARKEST, BRIGHTEST = 0.0, 0.85  # of the scale: its yellow end is hard to see on white


@checked
def plot_changes(table: pd.DataFrame, measure: str = "relative_change", *, first: int = 128) -> go.Figure:
    """What `weight_changes` gave, by layer, a line a role; or what `change_spectra` gave, a panel a role.

    Args:
        table: the frame of either function.
        measure: which column of `weight_changes` is drawn; a role's point is the mean over its matrices in that layer,
            and names them when hovered.
        first: how many singular values of each spectrum are drawn.

    Raises:
        UserError: the table is neither, or empty (no matrix differs), or has no such measure.
    """
    check_whole("first", first, 1)
    spectra = set(SPECTRUM) <= set(table.columns)
    if not spectra and not set(COLUMNS) <= set(table.columns):
        raise UserError("plot_changes draws the table of weight_changes or of change_spectra; this is neither")
    if table.empty:
        raise UserError("no matrix differs between before and after: there is nothing to draw")
    if measure not in WORDS:
        raise UserError(f"no measure {measure!r}: choose {', '.join(WORDS)}")
    return _spectra(table[table["index"] < first]) if spectra else _by_layer(table, measure)


def _by_layer(table: pd.DataFrame, measure: str) -> go.Figure:
    n_layers = int(table["layer"].max()) + 1
    outside = {role: n_layers + 0.5 + place for place, role in enumerate(table[table["layer"] < 0]["role"].unique())}
    figure = go.Figure()
    for role, rows in table.groupby("role", sort=False):
        color, symbol = style(str(role))
        points = rows.groupby("layer")[measure].mean()
        told = [_matrices(rows[rows["layer"] == layer], measure) for layer in points.index]
        figure.add_scatter(
            x=[layer if layer >= 0 else outside[str(role)] for layer in points.index],
            y=points,
            name=text(role),
            mode="lines+markers",
            line={"color": color, "dash": "dash"},
            marker={"symbol": symbol, "size": 8, "color": color, "line": {"width": 1.5, "color": color}},
            customdata=told,
            hovertemplate=f"<b>{text(role)}</b><br>%{{customdata}}<extra></extra>",
        )
    ticks = list(range(0, n_layers, max(1, n_layers // 16)))
    figure.update_xaxes(
        title="layer", tickvals=[*ticks, *outside.values()], ticktext=[*map(str, ticks), *map(text, outside)],
        showgrid=False, zeroline=False, tickangle=0,
    )  # fmt: skip
    if outside and n_layers:
        figure.add_vline(x=n_layers - 0.1, line={"color": GREY, "width": 1})
    figure.update_yaxes(title=WORDS[measure], rangemode="tozero")
    figure.update_layout(
        title={"text": "Change of the weights by layer", "subtitle": {"text": "mean over the matrices of a role"}},
        template="plotly_white",
        height=460,
        margin={"t": 80},
    )
    return figure


def _matrices(rows: pd.DataFrame, measure: str) -> str:
    """The matrices behind one point, for the hover."""
    return "<br>".join(f"{text(name)}: {value:.4g}" for name, value in zip(rows["name"], rows[measure], strict=True))


def _spectra(table: pd.DataFrame) -> go.Figure:
    roles = list(table["role"].unique())
    last = max(1, int(table["layer"].max()))
    figure = make_subplots(
        rows=(len(roles) + 1) // 2, cols=min(2, len(roles)), subplot_titles=[text(role) for role in roles],
        shared_yaxes=True, vertical_spacing=0.45 / len(roles), horizontal_spacing=0.05,
    )  # fmt: skip
    for (name, role), rows in table.groupby(["name", "role"], sort=False):
        layer = int(rows["layer"].iloc[0])
        place = roles.index(role)
        color = sample_colorscale(SCALE, DARKEST + (BRIGHTEST - DARKEST) * layer / last)[0] if layer >= 0 else GREY
        figure.add_scatter(
            x=rows["index"] + 1,
            y=rows["singular_value"],
            mode="lines",
            line={"color": color, "width": 1.5},
            showlegend=False,
            hovertemplate=f"<b>{text(name)}</b><br>singular value %{{x}}: %{{y:.4g}}<extra></extra>",
            row=place // 2 + 1,
            col=place % 2 + 1,
        )
    figure.update_yaxes(type="log", exponentformat="power", dtick=1, matches="y")
    figure.update_xaxes(title="index", row=(len(roles) + 1) // 2)
    bar = {"title": "layer", "dtick": max(1, last // 8), "len": 0.8}
    figure.add_scatter(  # no points: it carries the scale of the layers
        x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"color": [0], "cmin": 0, "cmax": last, "showscale": True, "colorbar": bar,
                "colorscale": sample_colorscale(SCALE, [DARKEST + (BRIGHTEST - DARKEST) * i / 8 for i in range(9)])},
    )  # fmt: skip
    figure.update_layout(
        title={
            "text": "Singular values of the weights' change",
            "subtitle": {"text": "largest first, log scale; a line a matrix, grey: outside the blocks"},
        },
        template="plotly_white",
        height=160 + 210 * ((len(roles) + 1) // 2),
        margin={"t": 100},
    )
    return figure
