"""`mechunlearn evaluate` and `mechunlearn measures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
)
from .asking import ChatOption, Form, SetOption, SystemOption, TemplateOption, TokenizerOption, opened
from .inputs import chosen_facts, look_for, passages, split, tell_prompts


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="The model to ask.")],
    facts: FactsOption,
    before: Annotated[
        str | None, typer.Option(help="The model before unlearning, to compare generations and divergence with.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="General text, one passage a line; or 'organism'.")] = None,
    measures: Annotated[
        str | None, typer.Option(help="Names separated by commas; `mechunlearn measures` lists them. [default: all]")
    ] = None,
    prompts: PromptsOption = "held_out",
    by: Annotated[str, typer.Option(help="Groups: any of role, domain, fold, relation, subject.")] = "role",
    options: Annotated[int, typer.Option(min=2, help="Options of a multiple choice.")] = 4,
    letters: Annotated[
        bool, typer.Option(help="Answer multiple choice by letters, or (as the organism learned) by texts.")
    ] = True,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The length of generations.")] = 30,
    batch_size: BatchOption = 64,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the facts file; default: guessed.")] = None,
    columns: ColumnsOption = None,
    keys: KeysOption = None,
    role: Annotated[str, typer.Option(help="forget, near, far or all.")] = "all",
    template: TemplateOption = None,
    chat: ChatOption = False,
    system: SystemOption = None,
    template_set: SetOption = None,
    tokenizer: TokenizerOption = None,
    limit: LimitOption = None,
    device: DeviceOption = None,
    dtype: TypeOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
) -> None:
    """Measure what a model knows, and what it lost.

    Facts to forget, facts near and far, and general text, each with a 95 % interval (over subjects, where facts have
    them).

    \b
    Examples:
      mechunlearn evaluate runs/npo/model --before organism --facts organism --text organism --no-letters
      mechunlearn evaluate ./my-model --facts qa.jsonl --measures recall,rank --out runs/my-model
    """
    look_for(model, before)
    form = Form(template, chat, system, template_set)
    chosen = form.of(chosen_facts(facts, format, columns, keys, role, limit))
    from .. import evaluation
    from ..facts import organism_text
    from ..reporting import across

    tell_prompts(prompts)
    general = organism_text() if text == "organism" else passages(None if text is None else Path(text))
    names = split("--measures", measures) if measures is not None else None
    evaluation.chosen_measures(names, before=before is not None, text=text is not None)  # before models are opened
    groups = split("--by", by)
    evaluation.check_groups(groups)
    found = evaluation.evaluate(
        opened(model, tokenizer, device, dtype),
        chosen,
        text=general,
        before=opened(before, tokenizer, device, dtype),
        measures=names,
        prompts=prompts,
        options=options,
        letters=letters,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        run=out,
        name=name,
    )
    typer.echo(across(found.summary(groups)).to_string())
    for note in found.about.get("notes", ()):
        typer.echo(f"Mind: {note}.")
    if out is not None:
        typer.echo(f"\nWritten to {out}.")


@app.command()
def measures() -> None:
    """List what `mechunlearn evaluate` measures, and which way each measure points.

    \b
    Example:
      mechunlearn measures
    """
    from ..evaluation import MEASURES

    for name, measure in MEASURES.items():
        source = f"  ({measure.source})" if measure.source else ""
        typer.echo(f"{name}{source}\n    {measure.what}: {measure.direction}")
