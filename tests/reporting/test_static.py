"""The report as Markdown, LaTeX and pictures: all of it there, and no text of a user a command."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
import plotly.io
import pytest
from hypothesis import example, given, strategies as st
from markdown_it import MarkdownIt

from mechunlearn.errors import UserError
from mechunlearn.reporting import report
from mechunlearn.reporting.writers import latex, markdown
from mechunlearn.reporting.writers.static import Table

from . import synthetic
from .test_report import HOSTILE

PIXEL = b"\x89PNG drawn"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Figures are handed over, not drawn: widths and heights of what was asked for."""
    sizes: list[tuple[int, int]] = []

    def write(figures, files, *, scale: int, width: int, height: list[int]) -> None:
        assert scale == 2
        for figure, file, high in zip(figures, files, height, strict=True):
            assert high == figure.layout.height
            sizes.append((width, high))
            Path(file).write_bytes(PIXEL)

    monkeypatch.setattr(plotly.io, "write_images", write)
    return sizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthetic.write_dissection(tmp_path / "npo" / "dissection", table=synthetic.frame(22), hostile=HOSTILE)
    synthetic.write_unlearning(tmp_path / "npo")
    recalls = {("relearn", HOSTILE[0]): (0.6, 0.1), ("prompts", "few_shot & 50 %"): (0.2, 0.05)}
    synthetic.write_attacks(tmp_path / "attacks", synthetic.attack_frame(recalls))
    synthetic.write_evaluation(tmp_path / "evaluation")
    return tmp_path


def test_markdown_has_words_figures_and_tables(folder: Path, drawn: list[tuple[int, int]]) -> None:
    file = report(folder, format="md")
    text = file.read_text(encoding="utf-8")
    assert file == folder / "report.md"
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == len(drawn) == len(set(pictures)) > 4
    assert all((folder / name).read_bytes() == PIXEL for name in pictures)
    for part in (
        "# Was the knowledge",
        "The answer can be put back",
        "## Attacks: attacks",
        "Evaluation: evaluation",
        "Controls: 3 of 3 passed",
        "What this does and does not show",
        "answered right again",
        "Recovery is 1",
    ):
        assert part in text, part  # fmt: skip
    assert "<script>" not in text.replace("\\<", "")


def test_latex_has_the_same_and_every_environment_ends(folder: Path, drawn: list[tuple[int, int]]) -> None:
    text = report(folder, "paper/all.tex", format="pdf-ready").read_text(encoding="utf-8")
    pictures = re.findall(r"\\includegraphics\[.*?\]\{(.*?)\}", text)
    assert len(pictures) == len(drawn) and all((folder / "paper" / name).exists() for name in pictures)
    opened, closed = (re.findall(rf"\\{which}\{{(\w+)\}}", text) for which in ("begin", "end"))
    assert sorted(opened) == sorted(closed) and opened.count("figure") == len(pictures)
    assert text.count("\\caption{") == len(pictures) + opened.count("table")
    assert r"50 \%" in text and r"few\_\allowbreak{}shot \&" in text
    for line in text.splitlines():
        left = re.sub(r"\\[{}]", "", line)
        if not line.startswith(("\\fitted", "\\providecommand")) and "\\end{tabular}" not in line:
            assert left.count("{") == left.count("}"), line


def test_pictures_with_their_captions(folder: Path, drawn: list[tuple[int, int]]) -> None:
    target = report(folder, format="png")
    captions = (target / "captions.md").read_text(encoding="utf-8").strip().split("\n\n")
    assert target == folder / "figures" and len(captions) == len(drawn) == len(list(target.glob("*.png")))
    assert captions[0].startswith("**figure-01.png** Recovery by layer")
    assert {width for width, _ in drawn} == {760} and len({height for _, height in drawn}) > 1  # each its own height


@given(st.text(max_size=60))
def test_no_text_is_markup(text: str) -> None:
    for letters in (markdown.escaped(text), latex.escaped(text)):
        assert "\n" not in letters
    assert not re.search(r"(?<!\\)[<>`*|]", markdown.escaped(text).replace("\\\\", ""))
    bare = latex.escaped(text)
    for known in sorted(set(latex._SPECIAL.values()), key=len, reverse=True):
        bare = bare.replace(known, "")
    assert not set(bare) & set("\\{}$&#%_^~")
    bare.encode("utf-8")


def test_nothing_to_draw_with_is_one_clear_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("\nKaleido requires Google Chrome to be installed.\nMore about it.")

    monkeypatch.setattr(plotly.io, "write_images", fail)
    with pytest.raises(UserError, match=r"requires Google Chrome to be installed\..*mechunlearn\[figures\]"):
        report(folder, format="md")
    assert not (folder / "report.md").exists() and not (folder / "report_figures").exists()


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format 'docx': not one of html, md, pdf-ready, png"):
        report(tmp_path / "missing", format="docx")


def rendered(source: str) -> str:
    """What a reader of Markdown sees."""
    page = MarkdownIt("commonmark").enable("table").render(source)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).map(
        lambda text: " ".join(text.split())
    )
)
@example("&amp; &lt;b&gt; &#65;")
@example("- no item")
@example("1. nor this")
@example("<b>bold</b> **bold** `code` [link](x) ![x](y)")
def test_markdown_shows_the_text_as_it_is(text: str) -> None:
    assert rendered(markdown.escaped(text)) == text


NUMBERS = ["1e5", "007", "1990.10", "1_000", "+5", "-0", "0x1F", "1E400", "nan", "inf", " 5 ", "12:30", "&amp;"]


def test_tables_leave_what_looks_like_a_number_as_it_is() -> None:
    table = Table("words", pd.DataFrame({"said": NUMBERS, "1e3": NUMBERS}))
    text = "\n\n".join(markdown._written(table, iter(())))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:]]
    assert [[rendered(cell) for cell in row] for row in cells] == [[text.strip()] * 2 for text in NUMBERS]
    assert "1e3" in text.splitlines()[2]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[2] of them", "{[}2{]} of them"),
        ("* starred", "{*} starred"),
        ("a -- b --- c", "a -{}- b -{}-{}- c"),
        ("don''t `quote`", r"don'{}'t \textasciigrave{}quote\textasciigrave{}"),
        ("007", "007"),
        ("1e5", "1e5"),
        ("1990.10", "1990.10"),
    ],
)
def test_latex_takes_no_cell_for_an_argument(text: str, written: str) -> None:
    assert latex.escaped(text) == written
    table = latex._table("words", pd.DataFrame({"said": [text, text]}))
    assert table.count(written) == 2
    assert not re.search(r"\\\\\s*[\[*]", table)
