"""README.md as a reader who does all of it, at full length: what its blocks print is written under them.

    make readme

A block with the language `text` holds what the block before it printed. Half an hour on two cores; the quick test of
the same blocks is `tests/test_readme.py`.
"""  # fmt: skip

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from plotly.basedatatypes import BaseFigure
from typer.testing import CliRunner

from mechunlearn.cli import app
from mechunlearn.facts import Facts

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "README.md"
LINES, WIDTH = 30, 150  # of what a block printed


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" where it names none), its text, and the line that the text begins in."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced code blocks of a page, in order."""
    language, began, lines = None, 0, []
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = re.fullmatch(r"```(.*)", line)
        if language is None and fence:
            language, began, lines = fence[1].strip(), number + 1, []
        elif language is not None and line == "```":
            yield Block(language, "\n".join(lines) + "\n", began)
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"line {began - 1}: a block that does not end"


class Reader:
    """Someone who does in the working directory what a page says; `run` does a command of ours and gives its output."""

    def __init__(self, run: Callable[[list[str]], str] | None = None) -> None:
        self.run = run or in_this_process
        self.said = ""  # what the block before printed
        self.results: list[str] = []  # what stands in the page's blocks of text, as it was printed now
        self.names: dict[str, Any] = {"__name__": "readme"}
        self.ways: dict[str, Callable[[Block], None]] = {
            "python": self.python,
            "": self.shell,
            "json": self.json,
            "toml": self.toml,
            "text": self.text,
            "console": self.console,
        }

    def read(self, markdown: str) -> list[Block]:
        """Do everything, and say what was done."""
        done = []
        for block in blocks(markdown):
            assert block.language in self.ways, f"line {block.line}: nobody knows how to run {block.language!r}"
            self.ways[block.language](block)
            done.append(block)
        return done

    def python(self, block: Block) -> None:
        """In the namespace of the blocks before; tracebacks show the line of the page."""
        with redirect_stdout(StringIO()) as printed:
            exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), self.names)
        self.said = printed.getvalue()

    def shell(self, block: Block) -> None:
        """Line by line. What would install or go on for ever is not run; what it names has to be there."""
        self.said = ""
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            command, rest = words[0].removeprefix(".venv/bin/"), words[1:]
            if command == "mechunlearn":
                self.said += f"{self.run(rest)}\n"
            elif command == "make":
                targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
                assert rest and set(rest) <= set(targets), f"no such target: {line}"
            elif command == "pip" and rest[:2] == ["install", "-e"]:
                extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
                assert rest[2:] in [[f".[{name}]"] for name in extras["optional-dependencies"]], (
                    f"no such extra: {line}"
                )
            elif command == "jupyter" and rest[:1] == ["lab"]:
                assert len(rest) == 2 and (ROOT / rest[1]).is_dir(), f"no such folder: {line}"
            else:
                raise AssertionError(f"line {block.line}: {line!r} is no command of ours")

    def text(self, block: Block) -> None:
        """What the block before printed."""
        assert self.said.strip(), f"line {block.line}: the block before prints nothing"
        self.results.append(shortened(self.said))
        self.said = ""

    def console(self, block: Block) -> None:
        """Commands on what a reader has and we have not: their options have to be there."""
        for line in block.text.replace("\\\n", " ").splitlines():
            _, command, *rest = shlex.split(line)
            known = CliRunner().invoke(app, [command, "--help"], prog_name="mechunlearn").stdout
            lacking = [word for word in rest if word.startswith("--") and f" {word} " not in known]
            assert not lacking, f"line {block.line}: {command} has no {', '.join(lacking)}"

    def json(self, block: Block) -> None:
        """Facts, one a line."""
        path = Path("readme.jsonl")
        path.write_text(block.text, encoding="utf-8")
        assert len(Facts.read(path))

    def toml(self, block: Block) -> None:
        """A settings file, whose name its first line says: "# name.toml"."""
        name = re.match(r"# ([\w-]+\.toml)\n", block.text)
        assert name, f"line {block.line}: the first line does not say how the file is called"
        tomllib.loads(block.text)
        Path(name[1]).write_text(block.text, encoding="utf-8")


def in_this_process(line: list[str]) -> str:
    """What a command of ours says.

    Raises:
        AssertionError: it fails.
    """
    result = CliRunner().invoke(app, line, prog_name="mechunlearn", catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


def in_its_own_process(line: list[str]) -> str:
    """Likewise, as a user's shell would run it."""
    command = [sys.executable, "-m", "mechunlearn", *line]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0, f"{line}\n{ran.stderr}"
    return ran.stdout


def shortened(printed: str) -> str:
    """As much of it as fits under a block: long lines and what follows the first lines are cut, which shows."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]
    return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], "…"]) + "\n"


def with_results(markdown: str, results: list[str]) -> str:
    """The page with these texts in its blocks of text, in order."""
    found, place = iter(results), 0
    parts = []
    for match in re.finditer(r"^```text\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        parts += [markdown[place : match.start()], f"```text\n{next(found)}```"]
        place = match.end()
    return "".join(parts) + markdown[place:]


def main() -> None:
    BaseFigure.show = lambda figure, *_, **__: None
    reader, page = Reader(in_its_own_process), PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        reader.read(page)
    PAGE.write_text(with_results(page, reader.results), encoding="utf-8")


if __name__ == "__main__":
    main()
