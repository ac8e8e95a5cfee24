"""The report: one HTML file that opens anywhere, without a network and without this package."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..dissection.styles import METRICS
from ..runs import write_atomically
from .attacked import attacks_section
from .evaluated import evaluation_section
from .folders import find
from .peaks import decimal
from .sections import dissection_section, unlearning_section
from .words import LIMITS

QUESTION = "Was the knowledge removed, or only made unreachable, and where?"
# Inside a script element only these can end or comment out the element; as JSON escapes they mean the same.
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def report(folder: str | Path, out: str | Path = "report.html") -> Path:
    """Write one HTML page about every dissection, unlearning run, run of attacks and evaluation at or below a folder.

    Args:
        folder: a run's folder, or one above several.
        out: the file; a relative path is taken from `folder`.

    Returns:
        The path of the page. It loads nothing from anywhere, and no text in it can run as a script: whatever
        users wrote is escaped, and the page's content security policy admits only the page's own scripts, by hash.

    Raises:
        UserError: no such folder, no finished run in it, broken files (named), or the page cannot be written.
    """
    found = find(folder)
    environment = Environment(
        loader=PackageLoader("mechunlearn.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_script"] = _in_script
    environment.filters["decimal"] = decimal
    scripts = [_script(get_plotlyjs()), _script(_text("report.js"))]
    page = environment.get_template("report.html").render(
        question=QUESTION,
        title=f"mechunlearn: {Path(folder).resolve().name}",
        dissections=[dissection_section(run, f"dissection-{i}") for i, run in enumerate(found.dissections)],
        unlearnings=[unlearning_section(run, f"unlearning-{i}") for i, run in enumerate(found.unlearnings)],
        attacks=[attacks_section(run, f"attacks-{i}") for i, run in enumerate(found.attacks)],
        evaluations=[evaluation_section(run, f"evaluation-{i}") for i, run in enumerate(found.evaluations)],
        unfinished=found.unfinished,
        others=found.others,
        limits=LIMITS,
        metrics=METRICS,
        style=Markup(_text("report.css")),
        scripts=scripts,
        policy=_policy(scripts),
        version=version("mechunlearn"),
    )
    # A lone surrogate (JSON can carry one) has no UTF-8 form.
    return write_atomically(Path(folder) / out, page.encode("utf-8", errors="replace"))


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
