"""The command line: one sub-command a verb, each a few lines around the public functions.

Imports of torch and its friends stand inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import attacking, dissecting, embedded, evaluating, forgetting  # noqa: F401 - they put their commands on `app`
from .app import app
from .extending import use as run_file

__all__ = ["app", "main"]


def main() -> None:
    """Where the installed command starts."""
    app(prog_name="mechunlearn")


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    use: Annotated[
        list[Path] | None,
        typer.Option(help="Your own Python file with methods, attacks or sites; run before the command. Repeatable."),
    ] = None,
) -> None:
    """Was the knowledge removed, or only made unreachable, and where?

    mechunlearn compares a language model before and after unlearning. It puts the one model's activations and weights
    into the other, layer window by layer window, and measures what comes back.

    \b
    Try it on the embedded model (three minutes, no download):
      mechunlearn demo
    On models of your own:
      mechunlearn dissect BEFORE AFTER --facts facts.jsonl --out runs/mine
      mechunlearn report runs/mine

    A model is a Hugging Face name, a checkpoint folder, 'organism' or 'organism:never-knew'. A fact is one line of JSON
    with at least a prompt and an answer.
    """
    for file in use or ():
        run_file(file)
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"mechunlearn {installed('mechunlearn')}")
