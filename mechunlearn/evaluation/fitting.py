"""Which questions a measure cannot take, where nobody asked for the measure by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..facts import Fact, Facts, Template, multiple_choice, prompt_tokens, tokenize, wrong_answers
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .choosing import choice_form, choice_rows
from .truth import truth_rows

LeftOut = dict[int, str]  # the row of a question -> why it is left out
PASSES = {"choice": "multiple choice", "truth": "the truth ratio", "generation": "generations"}


def left_out(
    model: LanguageModel,
    facts: Facts,
    made_by: str,
    *,
    template: Template,
    options: int,
    letters: bool,
    max_new_tokens: int,
    seed: int,
) -> LeftOut:
    """The questions that have too few distractors for this kind of measure, or do not fit into the context with it."""
    tokenizer, context = tokenizer_of(model), context_of(model)

    def of_choice(fact: Fact) -> int:
        asked = multiple_choice(fact, options=options, letters=letters, seed=seed)
        return int(tokenize(choice_rows([asked]), tokenizer, choice_form(template)).attention.sum(1).max())

    def of_truth(fact: Fact) -> int:
        return int(tokenize(truth_rows(fact, seed), tokenizer, template).attention.sum(1).max())

    def of_generation(fact: Fact) -> int:
        return len(prompt_tokens(fact.prompt, tokenizer, template)) + max_new_tokens

    kinds: dict[str, tuple[int, Callable[[Fact], int]]] = {
        "choice": (options - 1, of_choice), "truth": (1, of_truth), "generation": (0, of_generation)
    }  # fmt: skip
    if made_by not in kinds:
        return {}
    least, length = kinds[made_by]
    found: LeftOut = {}
    for row, fact in enumerate(facts):
        if len(wrong_answers(fact)) < least:
            found[row] = f"fewer than {least} distractors"
        elif context is not None and length(fact) > context:
            found[row] = f"more tokens than the context of {context}"
    return found


def told(found: dict[str, LeftOut], questions: int) -> list[str]:
    """What is left out of which measures, and why, a sentence each."""
    return [
        f"{PASSES[made_by]}: {count} of {questions} questions are left out ({why})"
        for made_by, rows in found.items()
        for why, count in Counter(rows.values()).items()
    ]
