"""What a user types, as what the verbs take; and what the commands print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import UserError
from ..naming import check_there
from ..reading import read_text

if TYPE_CHECKING:
    from ..dissection import Dissection
    from ..facts import Facts


def look_for(*models: str | None) -> None:
    """Raises UserError: one of these is no model that can be opened; said before torch is imported."""
    for model in models:
        if model is not None:
            check_there(model)


def chosen_facts(
    source: str, format: str | None, columns: str | None, keys: str | None, role: str | None, limit: int | None
) -> Facts:
    """The facts to ask, as the options say, and one line about the choice."""
    from ..facts import Facts

    facts = Facts.read(source, format, columns=columns_of(columns), keys=keys)
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


def passages(file: Path | None) -> list[str] | None:
    """General text of the user's, a passage a line."""
    if file is None:
        return None
    passages = [line for line in read_text(file).splitlines() if line.strip()]
    if not passages:
        raise UserError(f"{file}: holds no text")
    return passages


def tell_prompts(prompts: str) -> None:
    """One line that says in which phrasings is asked.

    Raises:
        UserError: no such phrasings.
    """
    from ..facts import PROMPTS, check_prompts

    check_prompts(prompts)
    typer.echo(f"Facts {PROMPTS[prompts]}.")


def columns_of(value: str | None) -> dict[str, str] | None:
    """Which column holds what, from "prompt=query,answer=gt"."""
    if value is None:
        return None
    found = {}
    for part in split("--columns", value):
        name, given, column = part.partition("=")
        if not given or not name.strip() or not column.strip():
            raise UserError(f"--columns {value}: {part!r} is not NAME=COLUMN; write prompt=query,answer=gt")
        found[name.strip()] = column.strip()
    return found


def split(option: str, value: str) -> list[str]:
    """Names separated by commas; those within brackets belong to a name (`head_output[0,3]`)."""
    parts = [part.strip() for part in re.split(r",(?![^\[\]]*\])", value)]
    if not all(parts):
        empty = "an empty name among them" if any(parts) else "an empty list"
        raise UserError(f"{option} {value!r}: {empty}; separate names by single commas")
    return parts


def show(result: Dissection, metric: str) -> None:
    from ..dissection.peaks import strongest
    from ..reporting import Words
    from ..showing import plain

    summary, notes = result.summary(), result.about.get("notes", ())
    frames = {"controls": result.controls, "facts": result.facts, "answers": result.answers}
    changed = (result.about.get("comparison") or {}).get("relative_change")
    words = Words.of(summary, **frames, metric=metric, notes=notes, changed=changed)
    typer.echo(plain(strongest(summary, metric, result.answers)))
    typer.echo(f"\n{words.headline}")
    for warning in words.warnings:
        typer.echo(f"Mind: {warning}")
