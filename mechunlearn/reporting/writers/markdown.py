"""The report as Markdown: text, tables, and PNGs in a folder beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...runs import write_atomically
from ..content import Content
from ..elements import Figure
from .static import Block, Bullets, Heading, Table, blocks, draw


def write_markdown(content: Content, file: Path) -> Path:
    """Write the text, and its figures into `{name}_figures`."""
    found = list(blocks(content))
    folder = file.with_name(f"{file.stem}_figures")
    pictures = iter(draw([block for block in found if isinstance(block, Figure)], folder, ".png"))
    text = "\n\n".join(part for block in found for part in _written(block, pictures)) + "\n"
    return write_atomically(file, text.encode("utf-8", errors="replace"))


def _written(block: Block, pictures: Iterator[Path]) -> Iterator[str]:
    match block:
        case Heading(text, level):
            yield f"{'#' * level} {escaped(text)}"
        case Bullets(texts):
            yield "\n".join(f"- {escaped(text)}" for text in texts)
        case Table(caption, frame):
            yield f"*{escaped(caption)}*"
            yield frame.rename(columns=escaped).map(escaped).to_markdown(index=False, disable_numparse=True)
        case Figure():
            picture = next(pictures)
            yield f"![{escaped(block.title)}]({picture.parent.name}/{picture.name})"
            yield f"*{escaped(block.title)}. {escaped(block.caption)}*"
        case str():
            yield escaped(block)


def escaped(text: object) -> str:
    """One line in which nothing of a user's is markup: neither Markdown's nor HTML's, which Markdown lets through."""
    line = re.sub(r"([\\`*_{}\[\]<>#|~!$&])", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"^([0-9]*)([-+.)])(?= |$)", r"\1\\\2", line)  # no item of a list
