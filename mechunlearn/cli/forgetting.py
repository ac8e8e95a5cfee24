"""`mechunlearn unlearn` and `mechunlearn methods`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .app import ColumnsOption, DeviceOption, KeysOption, NameOption, SeedOption, TypeOption, app
from .asking import (
    ChatOption,
    EitherFactsOption,
    ForgetOption,
    Form,
    RetainOption,
    SetOption,
    SystemOption,
    TemplateOption,
    TokenizerOption,
    facts_with_roles,
    opened,
    to_ask_again,
)
from .inputs import look_for, passages, split, tell_prompts
from .listing import check_method
from .settings import assignments, limits, merged, read_settings


@app.command()
def unlearn(
    model: Annotated[str, typer.Argument(help="The model that is to forget.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; the model lands in OUT/model.")],
    facts: EitherFactsOption = None,
    forget_facts: ForgetOption = None,
    retain_facts: RetainOption = None,
    method: Annotated[str | None, typer.Option(help="A name; `mechunlearn methods` lists them.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method, like beta=0.3; can be repeated.")
    ] = None,
    layered: Annotated[
        str | None, typer.Option(help="Forget in stages over folds: 4, or folds=4,decay=0.1,stage_stop=chance.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Largest disruption: 0.01 (KL), or kl=0.01,loss=0.001,near=0.9,far=0.9.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(help="Stop when recall of the facts to forget is this low (0 to 1), or at 'chance'.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many evaluations without progress.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps at most. [default: 100]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="4e-4 suits the organism, 1e-5 a 7B model. [default: 4e-4]")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adam or sgd. [default: adamw]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Facts to forget, and as many to keep, in a step. [default: 32]")
    ] = None,
    accumulation: Annotated[int | None, typer.Option(min=1, help="Pieces of a step, to save memory.")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16 computes in it; weights stay float32.")] = None,
    trainable: Annotated[
        str | None, typer.Option(help="Sites or regular expressions, separated by commas. [default: the method's]")
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between evaluations. [default: 25]")] = None,
    text: Annotated[
        Path | None, typer.Option(help="General text to measure disruption on, one passage a line.")
    ] = None,
    retain_text: Annotated[Path | None, typer.Option(help="Other general text, to be retained.")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="In which phrasings evaluation asks: own, held_out or all. [default: held_out]")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="All of this as JSON or TOML; what the line says goes before.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Format of the facts file; default: guessed.")] = None,
    columns: ColumnsOption = None,
    keys: KeysOption = None,
    template: TemplateOption = None,
    chat: ChatOption = False,
    system: SystemOption = None,
    template_set: SetOption = None,
    tokenizer: TokenizerOption = None,
    device: DeviceOption = None,
    dtype: TypeOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
) -> None:
    """Make a model forget some facts and keep others.

    Facts with the role "forget" are to go, those with "near" or "far" to stay; or give them by two files. An
    interrupted run goes on where it stopped. A settings file holds the same names: method = "npo", set = {beta = 0.3},
    budget = {kl = 0.01}.

    \b
    Examples:
      mechunlearn unlearn organism --method npo --facts organism --out runs/npo
      mechunlearn unlearn organism --method cir --set objective=npo --budget 0.01 --facts organism --out runs/cir
      mechunlearn unlearn ./my-model --settings npo.toml --layered 4 --facts facts.jsonl --out runs/layers
      mechunlearn unlearn ./tofu-llama3 --method npo --forget-facts forget01.json --retain-facts retain99.json
        --template tofu-llama3 --out runs/tofu
    """
    given = {
        "method": method, "set": assignments(change), "layered": limits(layered, "folds"),
        "budget": limits(budget, "kl"), "stop": _number(stop), "patience": patience, "steps": steps,
        "learning_rate": learning_rate, "optimizer": optimizer, "batch_size": batch_size, "accumulation": accumulation,
        "precision": precision, "trainable": None if trainable is None else split("--trainable", trainable),
        "evaluate_every": evaluate_every, "prompts": prompts, "text": text, "retain_text": retain_text,
    }  # fmt: skip
    wanted = merged(read_settings(settings), given)
    if "method" not in wanted:
        raise UserError("no method: give --method NAME, or a settings file with one; `mechunlearn methods` lists them")

    check_method(wanted["method"])
    from ..facts import organism_text

    look_for(model)
    form = Form(template, chat, system, template_set)
    chosen = facts_with_roles(form, facts, forget_facts, retain_facts, format, columns, keys)
    source = str(facts or forget_facts)
    for role in ("forget", "retain"):
        if not len(getattr(chosen, role)):
            raise UserError(
                f'{source}: no facts to {role}; give each line a "role": "forget", or "near" or "far" to keep it, or '
                "name the facts to keep by --retain-facts"
            )
    from .. import unlearning

    chosen_method: Any = unlearning.configure(wanted.pop("method"), wanted.pop("set", {}))
    if "layered" in wanted:
        chosen_method = unlearning.make_layered(chosen_method, wanted.pop("layered"))
    if "budget" in wanted:
        wanted["budget"] = unlearning.make_budget(wanted["budget"])
    for kind, part in (("text", "held_out"), ("retain_text", "train")):
        file = wanted.pop(kind, None)
        wanted[kind] = (
            passages(Path(file)) if file is not None else organism_text(part) if model == "organism" else None
        )
    run = unlearning.unlearn(
        opened(model, tokenizer, device, dtype),
        chosen_method,
        chosen.forget,
        chosen.retain,
        device=device,
        dtype=dtype,
        seed=seed,
        run=out,
        name=name,
        **wanted,
    )
    tell_prompts(run.about["settings"]["prompts"])
    last = unlearning.kept_row(run.frame, run.about)
    for column in [name for name in run.frame.columns if name.endswith("_recall")]:
        role = column.removesuffix("_recall")
        if role.endswith("_token"):
            continue
        long = f"{role}_token_recall" in run.frame
        graded = f", probability of an answer token {last[f'{role}_probability']:.2f}" if long else ""
        typer.echo(f"{role:>8}: {last[column]:.1%} answered right{graded}")
    if "text_kl" in last:
        typer.echo(f"    text: {last['text_kl']:.4f} nats a token from the start")
    for told in (run.about["stopped"], *([run.about["remaining"]] if "remaining" in run.about else [])):
        typer.echo(f"{told[:1].upper()}{told[1:]}.")
    asked = to_ask_again(
        source, form, whole=facts is None, format=format, columns=columns, keys=keys, tokenizer=tokenizer
    )
    then = ["mechunlearn", "dissect", model, str(out / "model"), *asked, "--out", str(out / "dissection")]
    typer.echo(f"\nThe model is in {out / 'model'}. Now: {shlex.join(then)}")


def _number(value: str | None) -> float | str | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value
