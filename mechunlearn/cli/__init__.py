"""The command line: one sub-command a verb, each a few lines around the public functions.

Imports of torch and its friends stand inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from . import attacking, dissecting, embedded, evaluating, forgetting, listing  # noqa: F401 - they put their commands on `app`
from .app import app
from .extending import use as run_file

__all__ = ["app", "main"]


def main() -> None:
    """Where the installed command starts."""
    signal.signal(signal.SIGINT, _interrupted)
    app(prog_name="mechunlearn")


def _interrupted(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the system calls it
    """Ctrl-C. While modules are imported nothing is at stake, and libraries swallow what is raised: so end at once."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            sys.stderr.write("mechunlearn: interrupted before anything was done\n")
            sys.stderr.flush()
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


@app.callback(invoke_without_command=True)
def start(
    traceback: Annotated[  # noqa: ARG001 - taken out of the line at the rim, wherever it stands
        bool, typer.Option("--traceback", help="Show the whole traceback of what went wrong unforeseen.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    use: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Your own Python file with methods, attacks or sites; run before the command. Repeatable.",
        ),
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
