"""The report as one HTML file that opens anywhere, without a network and without this package."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ...dissection.metrics import PAPER_METRIC
from ...dissection.plotting.styles import metric_words
from ...runs import write_atomically
from ..content import QUESTION, Content
from ..elements import Cell
from ..headline import LIMITS

# Inside a script element only these can end or comment out the element; as JSON escapes they mean the same.
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_page(content: Content, file: Path) -> Path:
    """Write the page; it is there whole or not at all."""
    environment = Environment(
        loader=PackageLoader("mechunlearn.reporting.writers", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_script"] = _in_script
    environment.filters["cell"] = Cell.of
    # Tables can be used before the large script for figures is read.
    scripts = [_script(_text("tables.js")), _script(get_plotlyjs()), _script(_text("figures.js"))]
    page = environment.get_template("report.html").render(
        content=content,
        question=QUESTION,
        limits=LIMITS,
        paper_metric=metric_words(PAPER_METRIC),
        style=Markup(_text("report.css")),
        scripts=scripts,
        policy=_policy(scripts),
        version=version("mechunlearn"),
    )
    # A lone surrogate (JSON can carry one) has no UTF-8 form.
    return write_atomically(file, page.encode("utf-8", errors="replace"))


def _text(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def _script(source: str) -> Markup:
    """A script of ours as it stands in the page, with the line ends that the browser hashes."""
    return Markup(source.replace("\r\n", "\n"))


def _policy(scripts: list[Markup]) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri "
        "'none'; form-action 'none'"
    )


def _in_script(text: str) -> Markup:
    return Markup(text.translate(str.maketrans(_IN_SCRIPT)))
