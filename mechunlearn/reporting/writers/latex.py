"""The report as LaTeX for a paper: booktabs tables from the frames, vector figures with captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ...runs import write_atomically
from ...showing import short
from ..content import Content
from ..elements import Figure
from .static import Block, Bullets, Heading, Table, blocks, draw

LONGEST = 60  # characters in a cell of a table, which does not break into lines
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "_": r"\_\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    **{letter: f"\\{letter}" for letter in "{}$&#%"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # behind a line's end or an item these are arguments
    "→": r"$\to$",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "·": r"$\cdot$",
    "‖": r"$\|$",
    "²": "$^2$",
    "θ": r"$\theta$",
    "β": r"$\beta$",
    "–": "--",
    "…": r"\ldots{}",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u202f": r"\,",
    "\u00a0": "~",
}
_HEAD = r"""\documentclass{article}
\usepackage[a4paper, margin=25mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{booktabs, graphicx}
\providecommand{\fitted}[1]{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}
\begin{document}
"""


def write_latex(content: Content, file: Path) -> Path:
    r"""Write the text, and its figures into `{name}_figures`; each table and figure can be taken out by itself.

    Letters that pdfLaTeX's usual fonts lack (other scripts, emoji) are written as ?; the other formats have them.
    """
    found = list(blocks(content))
    folder = file.with_name(f"{file.stem}_figures")
    pictures = iter(draw([block for block in found if isinstance(block, Figure)], folder, ".pdf"))
    text = _HEAD + "\n\n".join(_written(block, pictures) for block in found) + "\n\\end{document}\n"
    return write_atomically(file, text.encode("utf-8"))


def _written(block: Block, pictures: Iterator[Path]) -> str:
    match block:
        case Heading(text, level):
            return f"\\{'sub' * max(0, level - 2)}section*{{{escaped(text)}}}"
        case Bullets(texts):
            items = "\n".join(f"\\item {escaped(text)}" for text in texts)
            return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"
        case Table(caption, frame):
            return _table(caption, frame)
        case Figure():
            picture = next(pictures)
            return (
                "\\begin{figure}[htbp]\n\\centering\n"
                f"\\includegraphics[width=\\linewidth]{{{picture.parent.name}/{picture.name}}}\n"
                f"\\caption{{{escaped(block.title)}. {escaped(block.caption)}}}\n\\end{{figure}}"
            )
        case str():
            return escaped(block)


def _table(caption: str, frame: pd.DataFrame) -> str:
    rows = frame.rename(columns=escaped).map(lambda text: escaped(short(str(text), LONGEST)))
    body = rows.to_latex(index=False, escape=False, column_format="l" * len(frame.columns)).strip()
    head = f"\\begin{{table}}[htbp]\n\\centering\\small\n\\caption{{{escaped(caption)}}}\n"
    return head + f"\\fitted{{%\n{body}}}\n\\end{{table}}"


def escaped(text: object) -> str:
    """One line in which nothing is a command, and no two letters melt into another one (`--` into a dash)."""
    line = " ".join(str(text).split())
    apart = (
        "{}" if letter == before and letter in "-,'" else "" for before, letter in zip(" " + line, line, strict=False)
    )
    written = (_SPECIAL.get(letter, letter if _printable(letter) else "?") for letter in line)
    return "".join(gap + letter for gap, letter in zip(apart, written, strict=True))


def _printable(letter: str) -> bool:
    """Whether T1's fonts have it: Latin-1's letters, and Latin Extended-A."""
    return " " <= letter <= "~" or "¡" <= letter <= "ſ"
