"""Layer × position maps of a dissection."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...checking import checked
from ...errors import UserError
from ...frames import check_frame
from ..metrics import PAPER_METRIC
from ..summary import NEEDED, summarise_recovery
from .styles import STATISTICS, arrow, count, layers, metric_words, number, rows_of, site_words, text


@checked
def plot_positions(
    frame: pd.DataFrame,
    metric: str = PAPER_METRIC,
    statistic: str = "mean_of_ratios",
    *,
    direction: str | None = None,
    fact: str | None = None,
) -> go.Figure:
    """Layer × position maps, one a site: blue restores the donor's answer, red moves away from it.

    Args:
        frame: the frame of a dissection with positions (other rows are left out).
        metric, statistic, direction: as in `plot_recovery`.
        fact: show this fact alone, with its tokens (in one phrasing: the question of that id, or the fact's first);
            None averages over facts by position.

    Raises:
        UserError: no row has a position, or there is no such metric, direction or fact.
    """
    if statistic not in STATISTICS:
        raise UserError(f"no statistic {statistic!r}: choose {' or '.join(STATISTICS)}")
    frame = check_frame("the frame of a dissection", frame, NEEDED | {"question": str, "token": str | None})
    frame = frame[frame["position"].notna()]
    if frame.empty:
        raise UserError("the frame has no layer × position rows: dissect with positions to get some")
    if fact is not None:
        chosen = frame[(frame["question"] == fact) | (frame["fact"] == fact)]
        if chosen.empty:
            raise UserError(f"no fact {fact!r} in the layer × position rows")
        fact = str(chosen["question"].iloc[0])
        frame = chosen[chosen["question"] == fact]
    frame, direction = rows_of(frame, metric, direction)
    summary = summarise_recovery(frame, resamples=500)  # for the hover
    places = sorted({int(place) for place in frame["position"]})
    ticks = {place: _tick(frame.loc[frame["position"] == place, "token"], place) for place in places}
    sites = list(dict.fromkeys(summary["site"]))
    figure = make_subplots(
        rows=len(sites),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=min(0.08, 0.3 / len(sites)),
        subplot_titles=[text(site_words(site)) for site in sites],
    )
    for row, site in enumerate(sites, start=1):
        rows = summary[summary["site"] == site].assign(
            window=lambda r: [layers(*window) for window in zip(r["first_layer"], r["last_layer"], strict=True)]
        )
        order = dict.fromkeys(rows.sort_values(["centre", "first_layer"])["window"])
        table = rows.pivot(index="window", columns="position", values=statistic).reindex(list(order))
        told = rows.assign(told=_told(rows, statistic, fact)).pivot(index="window", columns="position", values="told")
        told = told.reindex(list(order))
        figure.add_trace(
            go.Heatmap(
                z=table.to_numpy(dtype=float),
                x=[int(position) for position in table.columns],
                y=list(order),
                customdata=np.stack(
                    [
                        np.broadcast_to([ticks[int(p)] for p in table.columns], table.shape).astype(object),
                        told.fillna("").to_numpy(dtype=object),
                    ],
                    axis=-1,
                ),
                coloraxis="coloraxis",
                hoverongaps=False,
                hovertemplate=f"<b>{text(site_words(site))}</b><br>layer %{{y}}, position %{{x}}: %{{customdata[0]}}"
                "<br>recovery %{z:.3f}%{customdata[1]}<extra></extra>",
            ),
            row=row,
            col=1,
        )
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()), tickangle=-60, row=len(sites))
    figure.update_yaxes(title="layer", type="category", autorange="reversed", showgrid=False)
    figure.update_layout(
        coloraxis={"colorscale": "RdBu", "cmin": -1, "cmid": 0, "cmax": 1, "colorbar": {"title": "recovery"}},
        title={
            "text": f"Recovery by layer and position: {metric_words(metric)}",
            "subtitle": {
                "text": f"{arrow(direction)}, "
                + (f"fact {text(fact)}" if fact is not None else f"{STATISTICS[statistic][2]}, {count(summary)}")
            },
        },
        height=190 + 190 * len(sites),
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 90, "b": 90},
    )
    return figure


def _told(rows: pd.DataFrame, statistic: str, fact: str | None) -> list[str]:
    """What a cell says beside its value: whose it is, or the interval over facts and their number."""
    if fact is not None:
        return [f"<br>fact {text(fact)}"] * len(rows)
    low, high, _ = STATISTICS[statistic]
    cells = zip(rows[low], rows[high], rows["n"], strict=True)
    return [f" [{number(lo)}, {number(hi)}]<br>n = {n} facts" for lo, hi, n in cells]


def _tick(tokens: pd.Series, position: int) -> str:
    """`token_i`, or the position alone where the facts' tokens differ."""
    distinct = tokens.dropna().unique()
    if len(distinct) != 1:
        return str(position)
    token = " ".join(str(distinct[0]).split()) or "⏎" * ("\n" in str(distinct[0])) or "␣"
    return f"{text(token[:24])}_{position}"
