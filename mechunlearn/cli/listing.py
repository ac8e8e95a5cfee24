"""`mechunlearn methods` and `mechunlearn sites`: what there is to choose from.

The list of methods is kept as a file beside this one, so that reading it takes no torch; a test holds it to the
catalogue, and `make format` writes it anew. Where a file of the user's own was run first (`--use`), it is made from
what is there then.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ..errors import UserError
from ..naming import meant
from .app import DeviceOption, TypeOption, app
from .inputs import look_for

KEPT = Path(__file__).with_name("methods.txt")
WIDTH = 100


class Line(NamedTuple):
    """What a method does, and the paper it is from where that is not the one of its class."""

    does: str
    paper: str | None = None


LINES = {
    "gradient_ascent": Line("climb the loss of the forget answers; nothing holds the rest"),
    "gradient_difference": Line("climb the loss of the forget answers, descend that of the retain answers"),
    "gradient_ascent_kl": Line("climb the loss of the forget answers, keep other predictions (KL to the start model)"),
    "wga": Line("climb the loss of each forget token as steeply as the model still knows it"),
    "npo": Line("gradient ascent that lets go of a fact once it is forgotten"),
    "npo_kl": Line("npo, keeping other predictions (KL to the start model)"),
    "simnpo": Line("npo without a start model, by the mean log-likelihood of the answer"),
    "dpo": Line("prefer a distractor of the fact to its answer"),
    "idk_dpo": Line("prefer a refusal to the answer"),
    "idk": Line("learn to answer the forget prompts with a refusal"),
    "undial": Line("learn from the start model with the answer's logit turned down"),
    "rmu": Line("send the residual stream of forget data to a random direction"),
    "rmu_split": Line("rmu with one direction a fold", "2505.09500"),
    "circuit_breakers": Line("turn the representations of forget data away from what they were (LoRA)"),
    "mlp_breaking": Line("make what the MLPs write for forget data orthogonal to what they wrote"),
    "norm_breaking": Line("shrink the residual stream of forget data"),
    "cosine_breaking": Line("turn the residual stream of forget data away from what it was"),
    "cir": Line("MLP breaking, with the directions that all forget data share taken out of every update"),
    "repselect": Line("npo, with shared directions taken out of every update softly", "2606.17168"),
    "norm_limited_circuit_breakers": Line("circuit breakers by steps of a fixed length, nothing collapsed"),
}


def check_method(name: object) -> None:
    """Raises UserError: a name of no method. Said without torch, where no file of the user's own may have more."""
    if isinstance(name, str) and name not in LINES and not _own_may_be_there():
        raise UserError(f"method {name!r}: not one of {', '.join(LINES)}{meant(name, LINES)}")


def _own_may_be_there() -> bool:
    return "mechunlearn.unlearning" in sys.modules


@app.command()
def methods() -> None:
    """List the unlearning methods: what each does, its paper and its defaults.

    \b
    Example:
      mechunlearn methods
    """
    typer.echo(listed() if _own_may_be_there() else KEPT.read_text(encoding="utf-8"), nl=False)


def listed() -> str:
    """The list, made from the catalogue."""
    from ..unlearning import METHODS, settings_of

    blocks = []
    for name, method in METHODS.items():
        does, paper = LINES.get(name, Line((sys.modules[type(method).__module__].__doc__ or "").partition("\n")[0]))
        held = {key: value["name"] if isinstance(value, dict) else value for key, value in settings_of(method).items()}
        settings = ", ".join(f"{key}={_plain(value)}" for key, value in held.items())
        blocks.append(_block(f"{name}  (arXiv {paper or method.paper})", does, settings))
    layered = "forget in stages over folds of the facts, keeping the folds that are still to come"
    blocks.append(_block("layered  (arXiv 2505.09500)", layered, "--layered FOLDS, around any of them"))
    return "".join(blocks)


def _block(head: str, does: str, settings: str) -> str:
    lines = textwrap.wrap(settings, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join([head, *([f"    {does}"] if does else []), *lines]) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, tuple) and value and all(isinstance(text, str) for text in value):
        return f"{len(value)} texts"
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command()
def sites(
    model: Annotated[str, typer.Argument(help="A Hugging Face name, a checkpoint folder, or 'organism'.")],
    device: DeviceOption = None,
    dtype: TypeOption = None,
) -> None:
    """List the sites that a model has: where activations can be patched and parameters put back, with shapes.

    \b
    Example:
      mechunlearn sites organism
    """
    look_for(model)
    from ..models import load
    from ..showing import plain
    from ..site_table import site_table

    typer.echo(plain(site_table(load(model, device=device, dtype=dtype))))
    typer.echo(
        "\nIndices: among how many places SITE[0,3] or SITE[0-99] chooses in every layer; SITE[3:17,5:0-99] takes 17\n"
        "of layer 3 and 0 to 99 of layer 5. Activations are joined with +, whole or by places\n"
        "(mlp_coefficients[0-99]+attention_output). Besides: any TransformerLens hook in a block\n"
        "(blocks.{l}.attn.hook_q), and regular expressions over parameter names."
    )
