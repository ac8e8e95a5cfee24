"""The report as a row of blocks for what cannot be clicked on: Markdown, LaTeX, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import plotly.io

from ...errors import UserError
from ...runs import write_atomically
from ..content import QUESTION, Content
from ..elements import Figure
from ..fact_table import FactTable
from ..headline import LIMITS
from ..sections.dissection import DissectionSection

WIDTH = 760  # pixels of a figure: the width of a text column at twice the resolution
HEIGHT = 480  # of a figure that has none of its own
SHOWN_FACTS = 30
READING = (
    "Recovery is 1 − d(donor, patched) / d(donor, recipient): 0 = the patch changed nothing, 1 = predicts as the "
    "donor does. d is the squared difference of the logits at the positions that predict the answer (arXiv "
    "2410.06606). Brackets and bands are 95 % bootstrap intervals over subjects."
)


@dataclass(frozen=True)
class Heading:
    """A title of this depth; 1 is the report's."""

    text: str
    level: int


@dataclass(frozen=True)
class Table:
    """A table of texts with its caption."""

    caption: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    texts: Sequence[str]


Block = str | Heading | Bullets | Table | Figure


def blocks(content: Content) -> Iterator[Block]:
    """Everything that the page says, from top to bottom; of the facts the first few of each fate."""
    yield Heading(QUESTION, 1)
    if len(content.answers) == 1:
        yield Bullets([f"{label}: {text}" for label, text in content.answers[0].lines])
    elif content.answers:
        yield Table("All models: before → after; brackets are 95 % intervals.", content.table)
    for section in content.dissections:
        yield Heading(f"Dissection: {section.name}", 2)
        yield from _dissection(section)
    for section in content.unlearnings:
        yield Heading(f"Unlearning: {section.name}", 2)
        yield section.headline
        yield from _minds(section.warnings)
        yield from section.figures
        yield Table(f"Recall and disruption of {section.name}.", section.ends)
    for section in content.attacks:
        yield Heading(f"Attacks: {section.name}", 2)
        yield section.models
        yield section.words.headline
        yield from _minds(section.words.warnings)
        yield from section.figures
        yield Table("Forget recall under attack: at the worst step, after the last, and the model that never knew; "
                    f"95 % intervals over {section.over}.", section.table)  # fmt: skip
    for section in content.evaluations:
        yield Heading(f"Evaluation: {section.name}", 2)
        yield from _minds(section.warnings)
        yield Table(f"Measures of {section.model}, facts {section.asked}: mean [95 % interval over {section.over}] and "
                    "n.", section.table)  # fmt: skip
    if content.missing:
        yield Heading("Not known here", 2)
        yield Bullets(content.missing)
    if content.dissections:
        yield Heading("What this does and does not show", 2)
        yield Bullets(LIMITS)


def _dissection(section: DissectionSection) -> Iterator[Block]:
    yield f"{section.about['before']} → {section.about['after']}, facts {section.asked}"
    yield section.words.headline
    yield from _minds(section.words.warnings)
    if len(section.peaks):
        yield Table(f"Where each site recovers most; 95 % intervals over {section.over}.", section.peaks)
        yield READING
    yield Bullets(section.words.evidence)
    yield from section.figures
    if len(section.behaviour):
        yield Table("Behaviour before and after.", section.behaviour)
    if section.facts.choices:
        yield Table(f"Facts under the patch {section.facts.choices[0].label}: {section.facts.choices[0].told}",
                    _some_facts(section.facts))  # fmt: skip
    if len(section.controls):
        yield Table(f"Controls: {section.n_passed} of {section.n_passed + section.n_failed} passed.", section.controls)
    yield Table("Noise floor.", section.noise)


def _minds(warnings: Sequence[str]) -> Iterator[str]:
    yield from (f"Mind: {warning}" for warning in warnings)


def _some_facts(table: FactTable) -> pd.DataFrame:
    """As many of each fate as there is room for."""
    choice = table.choices[0]
    rows = [
        (row.prompt.text, row.answer.text, row.before.text, row.after.text, answer, status)
        for row, answer, status in zip(table.rows, choice.answers, choice.statuses, strict=True)
    ]
    found = pd.DataFrame(rows, columns=["prompt", "expected", "before", "after", "patched", "what became of it"])
    each = max(1, SHOWN_FACTS // max(1, found["what became of it"].nunique()))
    return found.groupby("what became of it", sort=False).head(each).sort_values("what became of it", kind="stable")


def draw(figures: Sequence[Figure], folder: Path, suffix: str) -> list[Path]:
    """Write each figure (".png" at twice the resolution, ".pdf" as vectors), named by its place.

    Raises:
        UserError: nothing to draw with: kaleido or a Chromium is missing.
    """
    names = [f"figure-{place:02d}{suffix}" for place in range(1, len(figures) + 1)]
    drawn = [plotly.io.from_json(figure.json) for figure in figures]
    heights = [figure.layout.height or HEIGHT for figure in drawn]  # pyright: ignore[reportAttributeAccessIssue]
    with TemporaryDirectory() as temporary:
        files: list[str | Path] = [Path(temporary) / name for name in names]
        try:
            # Without sizes here it takes the ones it likes, whatever the figures say; lists of them are documented.
            plotly.io.write_images(drawn, files, scale=2, width=WIDTH, height=heights)  # pyright: ignore[reportArgumentType]
        except (RuntimeError, ValueError) as error:  # plotly's words for no kaleido, no browser, a broken browser
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"static figures could not be drawn ({reason}); they need kaleido (pip install "
                "'mechunlearn[figures]') and a Chromium or Chrome; the format html needs neither"
            ) from error
        return [write_atomically(folder / name, (Path(temporary) / name).read_bytes()) for name in names]


def write_pictures(content: Content, folder: Path) -> Path:
    """All figures as PNG in a folder, with their captions in `captions.md`."""
    figures = [block for block in blocks(content) if isinstance(block, Figure)]
    files = draw(figures, folder, ".png")
    captions = [f"**{file.name}** {one.title}. {one.caption}\n" for file, one in zip(files, figures, strict=True)]
    write_atomically(folder / "captions.md", "\n".join(captions).encode())
    return folder
