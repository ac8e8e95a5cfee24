"""What every section of the page is made of: figures with captions, shortened texts, settings line by line."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

LONGEST = 400  # characters of a user's text in a table cell


@dataclass(frozen=True)
class Figure:
    """A figure with its caption (in the page, so that it wraps and can be read aloud)."""

    title: str
    caption: str
    json: str

    @classmethod
    def of(cls, figure: go.Figure, run: str) -> Figure:
        """`run`: whose figure it is, to begin the caption with."""
        title = figure.layout.title.text  # pyright: ignore[reportAttributeAccessIssue]
        subtitle = figure.layout.title.subtitle.text or ""  # pyright: ignore[reportAttributeAccessIssue]
        figure.update_layout(title=None)
        figure.layout.margin.t = 55  # pyright: ignore[reportAttributeAccessIssue]
        return cls(_plain(title), f"{run}; {_plain(subtitle)}" if subtitle else run, str(figure.to_json()))


@dataclass(frozen=True)
class Cell:
    """A user's text in a table, shortened where it is very long."""

    text: str
    length: int

    @classmethod
    def of(cls, value: object) -> Cell:
        text = "" if value is None or value is pd.NA else str(value)
        return cls(text[:LONGEST], len(text))

    @property
    def cut(self) -> bool:
        return self.length > LONGEST


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines of "facts · name: organism"."""
    rows = []
    for key, value in values.items():
        label = f"{prefix}{spaced(key)}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{label} · ")
        elif isinstance(value, list | tuple):
            rows.append((label, ", ".join(map(_shown, value))))
        else:
            rows.append((label, _shown(value)))
    return rows


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def spaced(name: object) -> str:
    return str(name).replace("_", " ")


def _plain(text: str) -> str:
    """A figure's text without plotly's escapes: the template escapes it once more."""
    return html.unescape(text)
