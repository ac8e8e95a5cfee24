"""In which phrasings facts are asked, and how a question is told from the fact that it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import UserError
from .fact import Fact

PROMPTS = {
    "own": "asked in their own phrasings",
    "held_out": "asked in held-out phrasings",
    "all": "asked in all phrasings",
}
"""The phrasings that facts can be asked in, and how a report says so."""


def phrasings(fact: Fact, prompts: str) -> list[tuple[str, str]]:
    """(what marks the phrasing in a question's id, its prompt)."""
    own = [("", fact.prompt)]
    hidden = [(f"#h{number}", prompt) for number, prompt in enumerate(fact.held_out)]
    shown = [(f"#p{number}", prompt) for number, prompt in enumerate(fact.paraphrases)]
    return {"own": own, "held_out": hidden or own, "all": own + shown + hidden}[prompts]


def check_prompts(prompts: str) -> None:
    """Raises UserError unless `prompts` names phrasings (`PROMPTS`)."""
    if prompts not in PROMPTS:
        raise UserError(f"prompts {prompts!r}: facts are asked by one of {', '.join(PROMPTS)}")


def refuse_marks(name: str, facts: Iterable[Fact]) -> None:
    """Raises UserError: ids that look like phrasings of one fact, and are not."""
    answers: dict[str, str | None] = {}
    for fact in facts:
        if fact.id != fact_of(fact.id) and answers.setdefault(fact_of(fact.id), fact.answer) != fact.answer:
            raise UserError(
                f"{name}: ids that end like {fact.id!r} mark phrasings of one fact, but those of "
                f"{fact_of(fact.id)!r} have other answers; give these facts other ids"
            )


def fact_of(question: str) -> str:
    """The id of the fact that a question asks for: what stands before the "#h0" or "#p0" of `Facts.questions`."""
    return re.sub(r"#[hp]\d+$", "", question)
