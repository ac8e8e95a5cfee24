"""How figures of a dissection look and name things: one colour a site, the same words everywhere."""

from __future__ import annotations

import html
import zlib

import numpy as np
import pandas as pd

from ...errors import UserError
from ...evaluation import resampled
from ...facts import PROMPTS
from ..metrics import METRICS

STATISTICS = {
    "mean_of_ratios": ("mean_low", "mean_high", "mean of ratios"),
    "ratio_of_means": ("ratio_low", "ratio_high", "ratio of means"),
}
# Okabe and Ito's colours, told apart with every common colour vision; related sites get related hues.
_VERMILLION, _ORANGE, _GREEN, _BLUE, _SKY, _PURPLE, GREY = (
    *("#D55E00", "#E69F00", "#009E73", "#0072B2", "#56B4E9", "#CC79A7"),
    "#8A8A8A",
)
_STYLES = {
    "mlp_coefficients": (_VERMILLION, "circle"),
    "attention_output": (_BLUE, "square"),
    "mlp_coefficients+attention_output": (_GREEN, "diamond"),
    "mlp_output": (_ORANGE, "triangle-up"),
    "residual": (GREY, "star"),
    "head_output": (_SKY, "pentagon"),
    "value_vectors": (_PURPLE, "circle-open"),
    "mlp_keys": (_ORANGE, "triangle-up-open"),
    "attention_qk": (_SKY, "square-open"),
    "attention_ov": (_BLUE, "diamond-open"),
    "attention": (_BLUE, "star-open"),
    "expert_value_vectors": (_PURPLE, "diamond-tall-open"),
    "expert_keys": (_ORANGE, "diamond-wide-open"),
    "router": (_VERMILLION, "square-x-open"),
    "norms": (GREY, "hexagon-open"),
    "embedding": (_GREEN, "cross-open"),
    "unembedding": (_VERMILLION, "x-open"),
    "final_norm": (GREY, "hexagon2-open"),
    "block": (_GREEN, "pentagon-open"),
    "everything": (_VERMILLION, "star-open"),
}


def style(site: str) -> tuple[str, str]:
    """Colour and marker of a site, always the same; a site of the user's own gets one from its name."""
    if site in _STYLES:
        return _STYLES[site]
    palette = (_PURPLE, _ORANGE, _SKY, _GREEN, _BLUE, _VERMILLION)
    return palette[zlib.crc32(site.encode()) % len(palette)], "bowtie"


def site_words(site: str) -> str:
    """A site as it reads in a sentence or a legend; hooks, regular expressions and a user's own sites as they are."""
    parts = [part.partition("[") for part in site.split("+")]
    if not all(name in _STYLES for name, _, _ in parts):
        return site
    return " with ".join(_plain(name) + bracket + indices for name, bracket, indices in parts)


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("mlp", "MLP").replace(" qk", " QK").replace(" ov", " OV")


def faint(color: str) -> str:
    """The colour of an interval's band."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def layers(first: int, last: int) -> str:
    """A window as it is written: "3", "2–6"."""
    if first < 0:
        return "none"
    return f"{first}" if first == last else f"{first}–{last}"


def number(value: float) -> str:
    """A value, or the word for none."""
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def count(summary: pd.DataFrame) -> str:
    """How many facts the estimates rest on, and what their intervals are over."""
    if summary.empty:
        return "no facts"
    low, high, undefined = summary["n"].min(), summary["n"].max(), summary["n_undefined"].max()
    facts = f"n = {high} facts" if low == high else f"n = {low} to {high} facts"
    undefined = f", up to {undefined} undefined" if undefined else ""
    return f"{facts}{undefined}, 95 % intervals over {resampled(summary)}"


def metric_words(name: object) -> str:
    """A metric as figures and sentences call it; by its own name where nobody knows it any more."""
    return METRICS[str(name)].words if name in METRICS else text(name)


def asked(source: object) -> str:
    """In which phrasings a dissection asked, as a line of its own; nothing for a bare frame, which does not say."""
    prompts = getattr(source, "about", {}).get("prompts")
    return f"<br>facts {PROMPTS[prompts]}" if prompts in PROMPTS else ""


def arrow(direction: str) -> str:
    """The direction of a patch as it is read."""
    return text(direction.replace("->", " → "))


def text(value: object) -> str:
    """Plotly reads a little HTML in its texts; names and tokens of users are none."""
    return html.escape(str(value), quote=False)


def rows_of(table: pd.DataFrame, metric: str, direction: str | None) -> tuple[pd.DataFrame, str]:
    """The rows of one metric and one direction (None: the first), and that direction.

    Raises:
        UserError: there are none; the message lists those that exist.
    """
    for name, value in (("metric", metric), ("direction", direction)):
        if value is not None and not (table[name] == value).any():
            raise UserError(f"no {name} {value!r} here: there are {', '.join(map(str, table[name].unique()))}")
    table = table[table["metric"] == metric]
    direction = direction or str(table["direction"].iloc[0])
    return table[table["direction"] == direction], direction
