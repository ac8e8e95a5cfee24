"""`mechunlearn dissect` and `mechunlearn report`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .app import (
    BatchOption,
    ColumnsOption,
    DeviceOption,
    FactsOption,
    KeysOption,
    LimitOption,
    NameOption,
    PromptsOption,
    SeedOption,
    TypeOption,
    app,
)  # fmt: skip
from .asking import ChatOption, Form, SetOption, SystemOption, TemplateOption, opened
from .inputs import chosen_facts, look_for, show, split, tell_prompts


@app.command()
def dissect(
    before: Annotated[str, typer.Argument(help="The model before unlearning.")],
    after: Annotated[str, typer.Argument(help="The model after unlearning.")],
    facts: FactsOption,
    out: Annotated[Path, typer.Option(help="Folder for the result; the same call on it resumes.")],
    format: Annotated[str | None, typer.Option(help="Format of the facts file; default: guessed.")] = None,
    columns: ColumnsOption = None,
    keys: KeysOption = None,
    role: Annotated[
        str | None, typer.Option(help="forget, near, far or all; default: forget where facts have roles.")
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(
            help="Where to intervene, separated by commas; default: eight sites. head_output[0,3] takes some of a "
            "site, head_output[2:0,4:1-3] some by layer, + joins activations; 'mechunlearn sites MODEL' lists all."
        ),
    ] = None,
    windows: Annotated[
        str, typer.Option(help="Any of sliding:N, single, up_to, from, all, or layers like 0-4.")
    ] = "sliding:5,single,all",
    direction: Annotated[
        str, typer.Option(help="before->after restores the knowledge, after->before injects the damage.")
    ] = "before->after",
    positions: Annotated[
        str,
        typer.Option(
            help="Patch at all, answer, answer_first, prompt, prompt_last, subject, subject_last, paper, each, or "
            "token positions like 3,4 or -1, the last that predicts the answer."
        ),
    ] = "all",
    metric: Annotated[
        str | None,
        typer.Option(help="Shown in the table: mse, mse_centred, kl or answer_logprob; default: mse. All are kept."),
    ] = None,
    prompts: PromptsOption = "held_out",
    template: TemplateOption = None,
    chat: ChatOption = False,
    system: SystemOption = None,
    template_set: SetOption = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="before|after|FOLDER",
            help="Whose tokenizer asks both models where the two differ; or a folder or name for models without one.",
        ),
    ] = "before",
    batch_size: BatchOption = 64,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens in one pass of patched rows; lower it where memory is short.")
    ] = None,
    device: DeviceOption = None,
    dtype: TypeOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    limit: LimitOption = None,
) -> None:
    """Find where the knowledge can be put back.

    Patches activations and restores parameters between the two models, and measures the answers.

    \b
    Examples:
      mechunlearn dissect organism runs/npo/model --facts organism --out runs/npo/dissection
      mechunlearn dissect ./before ./after --facts qa.jsonl --out runs/x --sites block,norms
      mechunlearn dissect ./before ./after --facts qa.jsonl --out runs/y --sites residual --positions subject_last
    """
    look_for(before, after)
    form = Form(template, chat, system, template_set)
    chosen = form.of(chosen_facts(facts, format, columns, keys, role, limit))
    from .. import dissection
    from ..dissection.metrics import METRICS, PAPER_METRIC

    tell_prompts(prompts)
    metric = PAPER_METRIC if metric is None else metric
    if metric not in METRICS:
        raise UserError(f"--metric {metric}: not one of {', '.join(METRICS)}")
    own = tokenizer in ("before", "after")
    other = None if own else tokenizer
    result = dissection.dissect(
        opened(before, other, device, dtype),
        opened(after, other, device, dtype),
        chosen,
        sites=split("--sites", sites) if sites is not None else None,
        windows=split("--windows", windows),
        direction=direction,
        positions=_positions(positions),
        prompts=prompts,
        tokenizer=tokenizer if own else "before",
        batch_size=batch_size,
        max_tokens=max_tokens,
        seed=seed,
        run=out,
        name=name,
        device=device,
        dtype=dtype,
    )
    show(result, metric)
    typer.echo(f"\nWritten to {out}. A page to read: {shlex.join(['mechunlearn', 'report', str(out)])}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or one above several.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write; a relative path is taken from FOLDER. [default: by format]"),
    ] = None,
    format: Annotated[
        str, typer.Option(help="html; md; pdf-ready (LaTeX and vector figures); png (the figures alone).")
    ] = "html",
) -> None:
    """Write one HTML page about all runs in a folder, or the same as Markdown, LaTeX or pictures.

    The page opens anywhere, without a network.

    \b
    Examples:
      mechunlearn report runs/npo
      mechunlearn report runs/npo --format pdf-ready
    """
    from .. import reporting

    typer.echo(f"The report is {reporting.report(folder, out, format=format)}")


def _positions(value: str) -> str | list[int]:
    parts = split("--positions", value)
    return (
        [int(part) for part in parts]
        if all(re.fullmatch(r"-?[0-9]{1,9}", part) for part in parts)
        else ", ".join(parts)
    )
