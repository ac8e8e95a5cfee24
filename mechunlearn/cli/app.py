"""What all commands share: how a mistake is told, and options that mean the same everywhere."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ..errors import UserError

TRACE = "--traceback"
HINT = "the same command goes on where it stopped"


METAVARS = {  # how a value is called in --help
    "model": "MODEL", "before": "MODEL", "after": "MODEL", "never_knew": "MODEL", "device": "DEVICE", "dtype": "DTYPE",
    "folder": "FOLDER", "out": "FOLDER", "facts": "FILE", "forget_facts": "FILE", "retain_facts": "FILE",
    "text": "FILE", "retain_text": "FILE", "settings": "FILE", "template": "NAME|TEXT", "system": "TEXT",
    "template_set": "NAME=VALUE", "tokenizer": "NAME|FOLDER",
    "method": "METHOD", "change": "NAME=VALUE", "layered": "FOLDS|NAME=VALUE,…",
    "budget": "KL|NAME=VALUE,…", "stop": "SHARE|chance", "optimizer": "adamw|adam|sgd", "precision": "bf16|no",
    "trainable": "SITE,…", "prompts": "own|held_out|all", "format": "FORMAT", "columns": "NAME=COLUMN,…",
    "keys": "HOW", "role": "ROLE", "sites": "SITE,…", "windows": "WINDOWS,…", "direction": "DIRECTION",
    "positions": "WHERE", "metric": "METRIC", "measures": "MEASURE,…", "by": "GROUP,…", "suite": "SUITE|ATTACK,…",
    "name": "NAME", "learning_rate": "NUMBER",
} | dict.fromkeys(
    ("patience", "steps", "batch_size", "accumulation", "evaluate_every", "seed", "limit", "max_tokens", "options",
     "max_new_tokens"), "N",
)  # fmt: skip


class Worded(TyperGroup):
    """Commands whose values are called by words that a person reads."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        for parameter in getattr(found, "params", ()):
            if parameter.metavar is None and not getattr(parameter, "is_flag", False):
                argument = parameter.param_type_name == "argument"
                parameter.metavar = parameter.name.upper() if argument else METAVARS.get(parameter.name)
        return found


class OneLine(Worded):
    """A user's mistake is one line on stderr and exit code 2; Ctrl-C one line and 130; what nobody foresaw one line and
    70. None is a traceback, unless `--traceback` asks for it."""

    given: list[str]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if TRACE in self.given:
                raise
            _complain(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain(f"interrupted; {HINT}")
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, TyperException):
            raise
        except BrokenPipeError:  # who reads the output has gone
            sys.stderr.close()
            raise typer.Exit(141) from None
        except Exception as error:
            if TRACE in self.given:
                raise
            _complain(_defect(error))
            raise typer.Exit(70) from None

    def main(self, args: Any = None, *rest: Any, standalone_mode: bool = True, **options: Any) -> Any:
        self.given = list(sys.argv[1:] if args is None else args)
        args = [word for word in self.given if word != TRACE] or ["--help"]
        if (empty := _empty(args)) is not None:
            _complain(f"{empty} is empty; give a value, or leave it out")
            if standalone_mode:
                sys.exit(2)
            return 2
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
    cls=Worded,
    rich_markup_mode=None,
    no_args_is_help=False,
    help="The embedded model with planted knowledge.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(organism_app, name="organism")

FactsOption = Annotated[
    str, typer.Option("--facts", help="A file (JSON lines, JSON, CSV), or the built-in 'organism'.")
]
ColumnsOption = Annotated[
    str | None, typer.Option(help="Which columns of the facts file hold what: prompt=query,answer=gt.")
]
KeysOption = Annotated[
    str | None,
    typer.Option(help="How a multiple choice says which is right: text, letter, number from 0, number from 1."),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")]
TypeOption = Annotated[
    str | None, typer.Option(help="float32, bfloat16, …; default: as given, which for a checkpoint is float32.")
]
PromptsOption = Annotated[str, typer.Option(help="In which phrasings facts are asked: own, held_out or all.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Rows in one forward pass.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Decides everything that is drawn at random.")]
NameOption = Annotated[
    str | None, typer.Option(help="What the run is called on pages and in tables. [default: as its folder]")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first LIMIT facts.")]


def _empty(args: list[str]) -> str | None:
    """The first option or argument of the line that says nothing."""
    for before, word in zip(["", *args], args, strict=False):
        name, given, value = word.partition("=")
        if word.startswith("--") and given and not value.strip():
            return name
        if not word.strip():
            return before if before.startswith("--") and "=" not in before else "an argument"
    return None


def _defect(error: Exception) -> str:
    """What went wrong where nobody foresaw it."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate" in str(error):
        return f"memory does not suffice ({_told(error)}); take a smaller --batch-size, fewer facts or another device"
    return (
        f"a defect of mechunlearn, {_told(error)}; please report it with what the same command prints with {TRACE} "
        "behind it"
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300] or 'no word more'}"


def _complain(message: str) -> None:
    typer.echo(f"mechunlearn: {' '.join(message.split())}", err=True)
