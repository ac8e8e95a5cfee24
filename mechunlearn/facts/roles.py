"""What is to be forgotten and what is to be kept, from two files, as one set of facts with roles."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UserError
from .facts import Facts


def with_roles(forget: Facts, retain: Facts | None = None) -> Facts:
    """Both as one set: the first are to be forgotten, whatever role they have; the others kept.

    Facts to keep that are no "far" ones count as "near": as a rule they are of the same data set. Where an id is that
    of a fact to forget, it gets "retain/" before it.

    Raises:
        UserError: no facts; the two are asked in different forms.
    """
    for facts in (forget, retain):
        if facts is not None and not len(facts):
            raise UserError(f"{facts.name}: there are no facts in it")
    items = [replace(fact, role="forget") for fact in forget]
    if retain is not None:
        if retain.template != forget.template:
            raise UserError(
                f"{forget.name} is asked as {forget.template} and {retain.name} as {retain.template}; give both one "
                "format, or one template"
            )
        taken = {fact.id for fact in forget}
        items += [
            replace(fact, role="far" if fact.role == "far" else "near",
                    id=f"retain/{fact.id}" if fact.id in taken else fact.id)
            for fact in retain
        ]  # fmt: skip
    return Facts(items, name=forget.name, format=forget.format, template=forget.template)
