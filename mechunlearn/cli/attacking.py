"""`mechunlearn attack`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .app import (
    BatchOption,
    ColumnsOption,
    DeviceOption,
    KeysOption,
    NameOption,
    PromptsOption,
    SeedOption,
    TypeOption,
    app,
)  # fmt: skip
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
)
from .inputs import look_for, passages, split, tell_prompts


@app.command()
def attack(
    model: Annotated[str, typer.Argument(help="The model after unlearning.")],
    out: Annotated[Path, typer.Option(help="Folder for the result; the same call on it resumes.")],
    facts: EitherFactsOption = None,
    forget_facts: ForgetOption = None,
    retain_facts: RetainOption = None,
    never_knew: Annotated[
        str | None, typer.Option(help="A model trained in the same way without the facts to forget: the scale.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="The model before unlearning: some attacks need it, prompts are tried on it.")
    ] = None,
    suite: Annotated[str, typer.Option(help="A suite, or attacks separated by commas; see below.")] = "default",
    text: Annotated[
        str | None, typer.Option(help="General text, one passage a line; or 'organism', the default for its facts.")
    ] = None,
    prompts: PromptsOption = "held_out",
    batch_size: BatchOption = 64,
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
    """Try to bring back what a model was made to forget.

    Facts with the role "forget" are asked for under every attack, near facts show whether an attack ruins the model.
    The never-knew model meets the same attacks: only what the other gives beyond it had stayed.

    \b
    Suites:
      default   everything below, with grids of settings; what lacks a model or a text is left out
      quick     relearn for three epochs, prompts, rounding to four bits
      relearn   relearn, by optimiser and learning rate
    Attacks:
      relearn      fine-tune on some folds of the facts, or on something harmless, and ask for the others
      prompts      other phrasings, frames, examples before the question, the first tokens of the answer
      quantise     round the weights to a few bits
      noise        add noise to the weights
      interpolate  go from the weights after unlearning towards those before (needs --before)
      ablate       take the direction out that unlearning added (needs --before)
      steer        add the difference to the states before unlearning (needs --before)

    \b
    Examples:
      mechunlearn attack runs/npo/model --never-knew organism:never-knew --before organism --facts organism
        --suite quick --out runs/npo/attacks
      mechunlearn attack ./my-model --facts qa.jsonl --suite prompts,quantise --out runs/mine/attacks
    """
    from ..errors import UserError
    from ..facts import organism_text

    look_for(model, before, never_knew)
    form = Form(template, chat, system, template_set)
    chosen = facts_with_roles(form, facts, forget_facts, retain_facts, format, columns, keys)
    if not len(chosen.forget) and any(fact.role is not None for fact in chosen):
        raise UserError(f'{facts}: no facts to ask for; give those that were to be forgotten "role": "forget"')
    from .. import attacks
    from ..reporting import attack_table

    names = split("--suite", suite)
    chosen_suite = names[0] if len(names) == 1 else names
    attacks.listed(chosen_suite)  # a wrong name is told before anything else is said
    tell_prompts(prompts)
    whole = text == "organism" or (text is None and facts == "organism")
    general = organism_text("train") if whole else passages(None if text is None else Path(text))
    found = attacks.attack(
        opened(model, tokenizer, device, dtype),
        chosen,
        suite=chosen_suite,
        before=opened(before, tokenizer, device, dtype),
        never_knew=opened(never_knew, tokenizer, device, dtype),
        text=general,
        prompts=prompts,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        run=out,
        name=name,
    )
    typer.echo(attack_table(found.frame, found.about["settings"]["left_out"], found.about.get("notes", ())))
    typer.echo(f"\nWritten to {out}. A page to read: {shlex.join(['mechunlearn', 'report', str(out)])}")
