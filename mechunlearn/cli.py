"""The command line: one sub-command a verb, each a few lines around the public functions.

Imports of torch and its friends stand inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from .errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from .facts import Facts

# Enough to forget the facts and to get the kept ones back, in a minute.
DEMO = {"steps": 80, "learning_rate": 4e-4, "evaluate_every": 40}
EVERY = 2  # the demo asks every second fact to forget, which is plenty for narrow intervals
HINT = "the same command goes on where it stopped"


class OneLine(TyperGroup):
    """A user's mistake is one line on stderr and exit code 2; Ctrl-C one line and 130. Neither is a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain(f"interrupted; {HINT}")
            raise typer.Exit(130) from None

    def main(self, args: Any = None, *rest: Any, standalone_mode: bool = True, **options: Any) -> Any:
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            result = super().main(args, *rest, standalone_mode=False, **options)
        except TyperException as error:  # unknown options, missing arguments and the like
            path = getattr(getattr(error, "ctx", None), "command_path", "mechunlearn")
            _complain(f"{error.format_message().rstrip('.')}. Try: {path} --help")
            result = 2
        if standalone_mode:
            sys.exit(result if isinstance(result, int) else 0)
        return result


app = typer.Typer(
    cls=OneLine,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
organism_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=False,
    help="The embedded model with planted knowledge.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(organism_app, name="organism")

FactsOption = Annotated[
    str, typer.Option("--facts", help="A file (JSON lines, JSON, CSV), or the built-in 'organism'.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")]
TypeOption = Annotated[str, typer.Option(help="Precision of the weights while they are analysed.")]
SeedOption = Annotated[int, typer.Option(help="Decides everything that is drawn at random.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first LIMIT facts.")]


def main() -> None:
    """Where the installed command starts."""
    app(prog_name="mechunlearn")


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
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
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"mechunlearn {installed('mechunlearn')}")


@app.command()
def dissect(
    before: Annotated[str, typer.Argument(help="The model before unlearning.")],
    after: Annotated[str, typer.Argument(help="The model after unlearning.")],
    facts: FactsOption,
    out: Annotated[Path, typer.Option(help="Folder for the result; the same call on it resumes.")],
    format: Annotated[str | None, typer.Option(help="Format of the facts file; default: guessed.")] = None,
    role: Annotated[
        str | None, typer.Option(help="forget, near, far or all; default: forget where facts have roles.")
    ] = None,
    sites: Annotated[
        str | None, typer.Option(help="Where to intervene, separated by commas; default: eight sites.")
    ] = None,
    windows: Annotated[
        str, typer.Option(help="Any of sliding:N, single, up_to, from, all, or layers like 0-4.")
    ] = "sliding:5,single,all",
    direction: Annotated[
        str, typer.Option(help="before->after restores the knowledge, after->before injects the damage.")
    ] = "before->after",
    positions: Annotated[
        str, typer.Option(help="Patch at all, answer, prompt, paper, each, or positions like 3,4.")
    ] = "all",
    metric: Annotated[
        str, typer.Option(help="Shown in the table: mse, mse_centred, kl or answer_logprob. All are kept.")
    ] = "mse",
    device: DeviceOption = None,
    dtype: TypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
) -> None:
    """Find where the knowledge can be put back.

    Patches activations and restores parameters between the two models, and measures the answers.

    \b
    Examples:
      mechunlearn dissect organism runs/npo/model --facts organism --out runs/npo/dissection
      mechunlearn dissect ./before ./after --facts qa.jsonl --out runs/x --sites block,norms
    """
    from . import dissection
    from .dissection.styles import METRICS
    from .sites import DEFAULT

    if metric not in METRICS:
        raise UserError(f"--metric {metric}: not one of {', '.join(METRICS)}")
    result = dissection.dissect(
        before,
        after,
        _choose(facts, format, role, limit),
        _split(sites) if sites is not None else DEFAULT,
        windows=_split(windows),
        direction=direction,
        positions=_positions(positions),
        seed=seed,
        run=out,
        device=device,
        dtype=dtype,
    )
    _show(result.summary(), result.controls, result.facts, metric)
    typer.echo(f"\nWritten to {out}. A page to read: mechunlearn report {out}")


@app.command()
def unlearn(
    model: Annotated[str, typer.Argument(help="The model that is to forget.")],
    method: Annotated[str, typer.Option(help="gradient_difference, npo or dpo.")],
    facts: FactsOption,
    out: Annotated[Path, typer.Option(help="Folder for the run; the model lands in OUT/model.")],
    format: Annotated[str | None, typer.Option(help="Format of the facts file; default: guessed.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps at most.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="4e-4 suits the organism, 1e-5 a 7B model.")] = 4e-4,
    batch: Annotated[int, typer.Option(min=1, help="Facts to forget, and as many to keep, in a step.")] = 32,
    stop: Annotated[
        float | None, typer.Option(help="Stop when recall of the facts to forget is this low (0 to 1).")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="General text to measure disruption on, one passage a line.")
    ] = None,
    device: DeviceOption = None,
    dtype: TypeOption = "float32",
    seed: SeedOption = 0,
) -> None:
    """Make a model forget some facts and keep others.

    Facts with the role "forget" are to go, those with "near" or "far" to stay.

    \b
    Example:
      mechunlearn unlearn organism --method npo --facts organism --out runs/npo
    """
    from . import unlearning
    from .facts import Facts, organism_text
    from .models import load

    if method not in unlearning.METHODS:
        raise UserError(f"--method {method}: not one of {', '.join(unlearning.METHODS)}")
    chosen = Facts.read(facts, format)
    for role in ("forget", "retain"):
        if not len(getattr(chosen, role)):
            raise UserError(
                f'{facts}: no facts to {role}; give each line a "role": "forget", or "near" or "far" to keep it'
            )
    passages = _passages(text) if text or model != "organism" else organism_text()
    run = unlearning.unlearn(
        load(model, device=device, dtype=dtype),
        unlearning.METHODS[method],
        chosen.forget,
        chosen.retain,
        text=passages,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        stop=stop,
        seed=seed,
        run=out,
    )
    last = run.frame.iloc[-1]
    for column in [name for name in run.frame.columns if name.endswith("_recall")]:
        typer.echo(f"{column.removesuffix('_recall'):>8}: {last[column]:.1%} answered right")
    typer.echo(f"\nThe model is in {out / 'model'}. Now: mechunlearn dissect {model} {out / 'model'}"
               f" --facts {facts} --out {out / 'dissection'}")  # fmt: skip


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or one above several.")],
    out: Annotated[Path, typer.Option(help="The page; a relative path is taken from FOLDER.")] = Path("report.html"),
) -> None:
    """Write one HTML page about all runs in a folder.

    It opens anywhere, without a network.

    \b
    Example:
      mechunlearn report runs/npo
    """
    from . import reporting

    typer.echo(f"The report is {reporting.report(folder, out)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all of it; a second call reuses it.")] = Path("runs/demo"),
    seed: SeedOption = 0,
) -> None:
    """See it work on the embedded model.

    It forgets by two methods, both are dissected, one report shows what happened.

    \b
    Example:
      mechunlearn demo
    """
    began = time.perf_counter()
    import torch

    from . import dissection, reporting
    from .facts import Facts, organism_text
    from .models import load
    from .unlearning import NPO, GradientDifference
    from .unlearning import unlearn as make_forget

    # The organism's matrices are too small to share out: more threads only wait for each other.
    torch.set_num_threads(1)
    before, facts, text = load("organism"), Facts.builtin("organism"), organism_text()
    shown = []
    for method in (GradientDifference(), NPO()):
        folder = out / method.name
        make_forget(before, method, facts.forget, facts.retain, text=text, seed=seed, run=folder, **DEMO)
        found = dissection.dissect(
            before,
            folder / "model",
            facts.forget[::EVERY],
            windows=["sliding:5", "single", "all"],
            seed=seed,
            run=folder / "dissection",
        )
        shown.append((method.name, found))
    page = reporting.report(out)
    for name, found in shown:
        typer.echo(f"\n== {name}")
        _show(found.summary(), found.controls, found.facts, "mse")
    typer.echo(f"\nThe report is {page} ({time.perf_counter() - began:.0f} s)")


@organism_app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="A new folder for models, facts and texts.")] = Path("runs/organism"),
    seed: SeedOption = 0,
) -> None:
    """Make the embedded model and its never-knew twin again.

    From nothing: about a quarter of an hour on two cores.

    \b
    Example:
      mechunlearn organism build --out my-organism --seed 1
    """
    from . import organism

    organism.build(out, seed=seed)
    typer.echo(f"Built in {out}. Load it with the path {out / 'organism'} in place of a model's name.")


def _choose(source: str, format: str | None, role: str | None, limit: int | None) -> Facts:
    """The facts to ask, as the options say, and one line about the choice."""
    from .facts import Facts

    facts = Facts.read(source, format)
    if role is None:
        role = "forget" if len(facts.forget) else "all"
    if role not in ("forget", "near", "far", "all"):
        raise UserError(f"--role {role}: not one of forget, near, far, all")
    chosen = facts if role == "all" else facts.where(role=role)
    if not len(chosen):
        raise UserError(f"{source}: no fact has the role {role!r}; --role all takes every fact")
    chosen = chosen[:limit]
    typer.echo(f"{len(chosen)} of {len(facts)} facts from {source} (format {facts.format}, role {role})")
    return chosen


def _passages(file: Path | None) -> list[str] | None:
    """General text of the user's, a passage a line."""
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as text: {error}") from None
    passages = [line for line in lines if line.strip()]
    if not passages:
        raise UserError(f"{file}: holds no text")
    return passages


def _positions(value: str) -> str | list[int]:
    parts = _split(value)
    return [int(part) for part in parts] if all(part.lstrip("-").isdigit() for part in parts) else value


def _split(value: str) -> list[str]:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise UserError(f"{value!r}: an empty list; separate names by commas")
    return parts


def _show(summary: pd.DataFrame, controls: pd.DataFrame, facts: pd.DataFrame, metric: str) -> None:
    from .reporting import Words, key_table

    words = Words.of(summary, controls=controls, facts=facts, metric=metric)
    if words.peaks:
        typer.echo(key_table(words.peaks))
    typer.echo(f"\n{words.headline}")
    for warning in words.warnings:
        typer.echo(f"Mind: {warning}")


def _complain(message: str) -> None:
    typer.echo(f"mechunlearn: {' '.join(message.split())}", err=True)
