"""Questions after other facts that are stated with their answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from ...errors import UserError
from ...facts import Fact, Facts, Template
from ..base import Given
from ..splits import groups


def few_shot(given: Given, shots: int) -> Facts:
    """Every question after facts of other folds (the other half, where there are no folds), drawn anew for each.

    `shots` facts are stated, or as many as the smallest choice holds; none of the asked fact's own fold is.

    Raises:
        UserError: facts that cannot be parted.
    """
    parts = groups(given.forget)
    others = {name: [fact for other in parts if other != name for fact in parts[other]] for name in parts}
    count = min(shots, *map(len, others.values()))
    drawn = [(question, others[name], count) for name, part in parts.items() for question in given.questions(part)]
    return _after(drawn, given.forget, given.seed)


def of_subject(given: Given, shots: int) -> Facts:
    """Every question after at most `shots` other facts of its subject; facts without such others are left out."""
    about: dict[str, list[Fact]] = defaultdict(list)
    for fact in given.forget:
        if fact.subject is not None:
            about[fact.subject].append(fact)
    drawn = []
    for facts in about.values():
        for fact in facts:
            others = [other for other in facts if other.id != fact.id]
            questions = given.questions(given.forget.with_items([fact])) if others else ()
            drawn += [(question, others, min(shots, len(others))) for question in questions]
    return _after(drawn, given.forget, given.seed)


def _after(drawn: Iterable[tuple[Fact, list[Fact], int]], facts: Facts, seed: int) -> Facts:
    """Each question after so many of its candidates, all of them in the words of the template."""
    template, questions = facts.template, []
    for question, candidates, count in drawn:
        chosen = random.Random(f"{seed} {question.id}").sample(candidates, count)
        stated = "".join(_statement(fact, template) for fact in chosen)
        questions.append(replace(question, prompt=stated + template.render_prompt(question.prompt)))
    # The words are those of the template already; what is left of it is how an answer follows.
    bare = replace(template, prompt="{prompt}")
    return Facts(questions, name=facts.name, format=facts.format, template=bare)


def _statement(fact: Fact, template: Template) -> str:
    """A fact with its answer and what parts it from the next: an empty line after several lines, else a full stop."""
    if fact.answer is None:
        raise UserError(f"fact {fact.id!r} has no answer to state; fill answers first (evaluation.greedy_answers)")
    answer = template.answer.replace("{answer}", fact.answer)
    text = (template.render_prompt(fact.prompt) + answer).rstrip()
    if "\n" in template.prompt:
        return text + "\n\n"
    return text + (" " if text.endswith((".", "!", "?")) else ". ")
