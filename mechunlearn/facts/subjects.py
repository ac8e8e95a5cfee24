"""Where a fact's subject stands among its tokens: found by characters, in the text that a model is really asked.

What counts is the last mention in the fact's own prompt, not in what a template puts around it. A mention as words of
its own goes before one inside a longer word ("Ann" is not looked for in "Annex" where it also stands alone); where
there is none of the first kind, as in languages that put no spaces between words, the last of the second kind counts.
White space may differ, letters may not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from ..checking import checked
from ..errors import UserError
from .fact import Fact, Template
from .facts import Facts
from .tokens import Tokens, encoded, prompt_text


@checked
def mark_subjects(
    tokens: Tokens,
    facts: Facts | Sequence[Fact],
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None = None,
) -> Tokens:
    """The same rows with `subjects`: True at every token that holds a character of the subject.

    A row of a fact without a subject, or whose prompt does not mention it, has none. A token that belongs to the
    answer is never one of the subject's.

    Args:
        tokens: what `tokenize` made of the same facts, with the same tokenizer and template.

    Raises:
        UserError: no fact has a subject, or no prompt mentions it; the tokenizer gives no offsets; the rows are those
            of other facts.
    """
    template = template or (facts.template if isinstance(facts, Facts) else Template())
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer gives no offsets, so the tokens of a subject cannot be told; use its fast version "
            "(a folder with tokenizer.json)"
        )
    named = [fact.subject.strip() if fact.subject else "" for fact in facts]
    if not any(named):
        raise UserError(
            f"none of these {len(named)} questions has a subject; give the facts one (Fact(subject=…), or the field "
            "'subject' of a file)"
        )
    heads = [prompt_text(fact.prompt, tokenizer, template) for fact in facts]
    spans = [
        mention(subject, fact.prompt, head, template) if subject else None
        for subject, fact, head in zip(named, facts, heads, strict=True)
    ]
    if not any(spans):
        first = next(number for number, subject in enumerate(named) if subject)
        raise UserError(
            f"no prompt mentions its subject as that is written: {named[first]!r:.60} does not stand in "
            f"{facts[first].prompt!r:.80}"
        )
    texts = [head + template.render_answer(fact.answer or "") for head, fact in zip(heads, facts, strict=True)]
    found = encoded(tokenizer, texts, offsets=True)
    marks = torch.zeros_like(tokens.answers)
    for row, (ids, offsets, span) in enumerate(zip(found["input_ids"], found["offset_mapping"], spans, strict=True)):
        length = int(tokens.attention[row].sum())
        start = length - len(ids)  # tokens that were put before the text
        if start < 0 or tokens.ids[row, start:length].tolist() != ids:
            raise UserError(f"row {row} of the tokens is not made of the fact {facts[row].id!r} with this template")
        if span is not None:
            held = [begin < span[1] and end > span[0] for begin, end in offsets]
            marks[row, start:length] = torch.tensor(held, device=marks.device)
    return replace(tokens, subjects=marks & ~tokens.answers)


def mention(subject: str, prompt: str, text: str, template: Template) -> tuple[int, int] | None:
    """Where the prompt's last mention of the subject begins and ends in the text that the template made of it.

    Returns:
        Places of characters, the end excluded; None where the prompt does not mention it.
    """
    before, _, behind = template.prompt.partition("{prompt}")
    place = re.match(f"(?s:.*){_loose(before)}({_loose(prompt)}){_loose(behind)}", text)
    if place is None:  # a chat template that changes more than white space was refused before
        return None
    name = _loose(subject)
    left, right = (r"(?<!\w)" if subject[0].isalnum() else ""), (r"(?!\w)" if subject[-1].isalnum() else "")
    for wanted in (f"{left}{name}{right}", name):
        found = re.compile(f"(?s:.*)({wanted})").match(text, *place.span(1))
        if found is not None:
            return found.span(1)
    return None


def _loose(text: str) -> str:
    """A regular expression for the text, in which white space may be any other."""
    left, right = (r"\s*" if end.isspace() else "" for end in (text[:1], text[-1:]))
    return left + r"\s+".join(map(re.escape, text.split())) + right
