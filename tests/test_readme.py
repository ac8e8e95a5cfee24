"""Every code block of README.md is run as it stands, in order, in one folder, as a reader would who types all of it.

To be quick, the test hands the blocks less to do, and nothing else: the built-in facts are a few of each role and fold,
the built-in texts a few passages, and `unlearn` makes two steps where a block names no number of steps. A figure that a
block shows is written as JSON rather than opened in a browser.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from plotly.basedatatypes import BaseFigure

import mechunlearn as mu
from mechunlearn import attacks, facts, sites, unlearning
from mechunlearn.facts import Facts

from .readme import PAGE, ROOT, Reader, shortened, with_results

FACTS, PASSAGES, STEPS = 2, 20, 2  # of each role and fold, of each text, of each run


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Less to do, a working directory of its own, and the figures that are shown there."""
    builtin, passages = Facts.builtin, facts.organism_text
    figures: list[str] = []

    def few(name: str = "organism", forget: str = "domain") -> Facts:
        everything = builtin(name, forget)
        groups = defaultdict(list)
        for fact in everything:
            groups[fact.role, fact.fold].append(fact)
        return everything.with_items(fact for group in groups.values() for fact in group[:: len(group) // FACTS])

    monkeypatch.setattr(Facts, "builtin", few)
    unlearn = partial(unlearning.unlearn, steps=STEPS)
    for room, name, less in (
        (facts, "organism_text", lambda split="held_out": passages(split)[:PASSAGES]),
        (unlearning, "unlearn", unlearn),
    ):
        for place in (room, mu):  # the package keeps a name once it was used
            monkeypatch.setattr(place, name, less)
    monkeypatch.setattr(BaseFigure, "show", lambda figure: figures.append(figure.to_json()))
    monkeypatch.chdir(tmp_path)
    return figures


@pytest.mark.slow
def test_every_block_of_the_readme_runs(shown: list[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    done = Reader().read(text)
    assert {block.language for block in done} == {"python", "", "json", "toml", "text", "console"}
    assert len(shown) == text.count(".show()")
    for page in ("runs/first/report.html", "runs/npo/report.html"):
        assert Path(page).stat().st_size > 10_000
    assert Path("runs/layered/stages/4/model/config.json").exists()


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nimport mechunlearn as mu\n```\n\n```python\nmu.unlern()\n```", "unlern"),
        ("```python\nassert False, 'in a block'\n```", "in a block"),
        ("```\nmake demo\nmake nonsense\n```", "make nonsense"),
        ("```\nmechunlearn methods --nonsense\n```", "--nonsense"),
        ("```\nmechunlearn explain\n```", "explain"),
        ("```\nmechunlearn dissect a \\\n  b --facts nowhere.jsonl --out x\n```", "nowhere.jsonl"),
        ("```\npip install mechunlearn\n```", "is no command of ours"),
        ('```\n.venv/bin/pip install -e ".[nonsense]"\n```', "no such extra"),
        ("```\n.venv/bin/jupyter lab nonsense\n```", "no such folder"),
        ('```json\n{"prompt": "The capital of", "anser": "Paris"}\n```', "answer"),
        ("```toml\nsteps = 3\n```", "how the file is called"),
        ("```toml\n# x.toml\nsteps = \n```", "Invalid value"),
        ("```console\nmechunlearn attack x --nonsense y\n```", "attack has no --nonsense"),
        ("```text\nresult\n```", "the block before prints nothing"),
        ("```cobol\nDISPLAY 'x'\n```", "cobol"),
        ("```python\nx = 1\n", "line 1: a block that does not end"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(shown: list[str], page: str, complaint: str) -> None:
    with pytest.raises((AssertionError, AttributeError, ValueError), match=re.escape(complaint)):
        Reader().read(page)


def test_a_page_that_is_right_is_done_from_top_to_bottom(shown: list[str]) -> None:
    page = (
        "# Title\n```python\nimport mechunlearn as mu\nfew = mu.Facts.builtin()\n```\ntext `code`\n\n"
        "```python\nassert len(few.forget) and len(mu.organism_text()) == 20\n```\n"
        '```json\n{"prompt": "a", "answer": "b"}\n```\n```toml\n# s.toml\nsteps = 3\n```\n'
        "```\nmechunlearn methods  # all of them\n\nmake \\\n  test\n.venv/bin/pip install -e '.[eval]'\n```\n"
    )
    done = Reader().read(page)
    assert [(block.language, block.line) for block in done] == [
        ("python", 3), ("python", 9), ("json", 12), ("toml", 15), ("", 19),
    ]  # fmt: skip
    assert Path("s.toml").exists()


def test_results_are_written_under_the_blocks_that_print_them() -> None:
    page = "```python\nprint('now')\n```\n\n```text\nthen\n```\n\n```python\nprint('b' * 200)\n```\n```text\n```\nend\n"
    reader = Reader()
    reader.read(page)
    written = with_results(page, reader.results)
    assert written == page.replace("then", "now").replace("```text\n```", f"```text\n{'b' * 149}…\n```")
    assert with_results(written, reader.results) == written
    assert shortened("\n".join(map(str, range(40)))).splitlines()[-2:] == ["28", "…"]


def test_a_wrong_line_is_named_by_its_number() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Reader().read("one\n\n```python\nx = 0\n1 / x\n```\n")
    assert caught.traceback[-1].lineno == 4  # counted from 0


def test_the_tables_name_what_there_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = {title: re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for title, part in _sections(text)}
    named = {name for row in rows["Sites"] for name in re.findall(r"`(\w+)`", row)}
    assert named == {*sites.ACTIVATIONS, *sites.PARAMETERS}
    classes = {name for row in rows["Attacks: erased, or only hidden?"] for name in re.findall(r"`(\w+)`", row)}
    assert classes == {type(one).__name__ for one in attacks.ATTACKS.values()}
    assert all(hasattr(mu, name) for name in classes)


def test_notebooks_are_listed_and_links_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    listed = re.findall(r"^\| \[\w+\]\((notebooks/\w+\.ipynb)\)", text, re.MULTILINE)
    assert listed == sorted(f"notebooks/{file.name}" for file in (ROOT / "notebooks").glob("*.ipynb"))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, rest = part.partition("\n")
        yield title, rest


def test_every_dotted_name_that_the_readme_writes_is_there_after_one_import():
    """In a fresh interpreter, with no import but the one that the README shows."""
    text = PAGE.read_text(encoding="utf-8")
    names = sorted(set(re.findall(r"\b(?:mechunlearn|mu)((?:\.[A-Za-z_]\w*)+)", text)))
    assert {".sites.available", ".evaluation.benchmark", ".load"} <= set(names)
    code = "import mechunlearn as mu\n" + "\n".join(f"mu{name}" for name in names)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
