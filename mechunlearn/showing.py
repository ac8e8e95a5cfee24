"""How objects show themselves: a sentence and a small table; in a notebook never a text of a user as markup."""

from __future__ import annotations

import html

import pandas as pd

ROWS = 8
WIDTH = 80  # characters of a cell


class Shown:
    """A result that shows itself: a sentence and a table, printed in a terminal and laid out in a notebook."""

    def _told(self) -> tuple[str, pd.DataFrame]:
        raise NotImplementedError

    def __str__(self) -> str:
        sentence, table = self._told()
        return f"{sentence}\n\n{plain(table.map(_cell))}"

    def _repr_html_(self) -> str:
        return shown(*self._told())


class Table(pd.DataFrame):
    """A frame that prints all its columns, rounded, whatever the width of the terminal; in all else a `DataFrame`."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:  # what is made of it is a plain frame
        return pd.DataFrame

    def __repr__(self) -> str:
        most = pd.get_option("display.max_rows") or len(self)
        more = f"\n{len(self) - most:,} more rows" if len(self) > most else ""
        return (plain(self.head(most).map(_cell)) if len(self) else super().__repr__()) + more


def shown(sentence: str, table: pd.DataFrame, of: int | None = None) -> str:
    """HTML of a sentence and the table's first rows, both escaped; no colours, so that it suits light and dark.

    Args:
        sentence: what the object is, as plain text.
        table: one line a row; numbers are rounded to three digits behind the point.
        of: how many rows there are in all, where `table` holds the first of them.
    """
    total = len(table) if of is None else of
    first = table.head(ROWS).map(_cell)
    first.columns = [str(name) for name in first.columns]
    with pd.option_context("display.html.use_mathjax", False, "display.max_colwidth", None):
        body = first.to_html(index=False, border=0, escape=True, na_rep="–")
    more = f"<p>{total - len(first):,} more rows</p>" if total > len(first) else ""
    return f'<div class="tex2jax_ignore mathjax_ignore"><p>{html.escape(sentence)}</p>{body}{more}</div>'


def plain(table: pd.DataFrame) -> str:
    """A table of texts for a terminal: as wide as it must be, a line a row."""
    rows = [tuple(map(str, table.columns)), *table.astype(str).itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def short(text: str, longest: int) -> str:
    """One line of a text that may be a user's, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _cell(value: object) -> object:
    """A value as it is read; a long text is cut."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1e}"
    if isinstance(value, str):
        return short(value, WIDTH)
    return value
