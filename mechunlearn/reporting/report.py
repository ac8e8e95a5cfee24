"""The report: one page that opens anywhere, or the same as Markdown, LaTeX or pictures for a paper."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..checking import checked
from ..errors import UserError
from .content import Content
from .folders import told
from .writers.latex import write_latex
from .writers.markdown import write_markdown
from .writers.page import write_page
from .writers.static import write_pictures

WRITERS = {"html": write_page, "md": write_markdown, "pdf-ready": write_latex, "png": write_pictures}
FILES = {"html": "report.html", "md": "report.md", "pdf-ready": "report.tex", "png": "figures"}


@checked
def report(folder: str | Path, out: str | Path | None = None, *, format: str = "html") -> Path:
    """Write about every dissection, unlearning run, run of attacks and evaluation at or below a folder.

    Args:
        folder: a run's folder, or one above several.
        out: the file; a relative path is taken from `folder`. By default `report.html`, `report.md`, `report.tex`,
            or the folder `figures`.
        format: "html": one page that loads nothing from anywhere, and in which no text can run as a script: whatever
            users wrote is escaped, and the page's content security policy admits only the page's own scripts, by hash.
            "md": Markdown with tables, and PNGs in `report_figures` beside it.
            "pdf-ready": LaTeX with booktabs tables and captions, and vector figures (PDF) likewise.
            "png": the figures alone, with their captions in `captions.md`.

    Returns:
        The path of the file (png: of the folder).

    Raises:
        UserError: no such folder or format, no finished run, broken files (named), or the report cannot be written;
            for all but "html" also where kaleido or a Chromium to draw with is missing.
    """
    if format not in WRITERS:
        raise UserError(f"format {format!r}: not one of {', '.join(WRITERS)}")
    content = Content.of(folder)
    place = Path(folder) / (out if out is not None else FILES[format])
    return told(str(folder), partial(WRITERS[format], content, place))
