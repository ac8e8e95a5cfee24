"""Multiple choice: does a model prefer the right option to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..facts import Choice, Fact, Facts, Template, multiple_choice, tokenize
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers


class ChoiceScores(NamedTuple):
    """`choice_accuracy` and `choice_probability` of each fact."""

    accuracy: Float[Tensor, " fact"]
    probability: Float[Tensor, " fact"]


def score_choices(
    model: LanguageModel,
    facts: Facts | Sequence[Fact],
    template: Template | None = None,
    *,
    options: int = 4,
    letters: bool = True,
    batch_size: int = 32,
    seed: int = 0,
) -> ChoiceScores:
    """Ask every fact as multiple choice (`facts.multiple_choice`) and score each option as an answer.

    A letter is scored by its log-probability; an option's text by its log-probability per token, so that short
    options have no advantage. Scores stay in a table of facts by options from the beginning: the form in
    open-unlearning pairs filtered values with the unfiltered list of their numbers, which shifts every fact that
    comes after a filtered one.

    Args:
        model: carries its tokenizer.
        facts: all need an answer and `options` − 1 distractors.
        template: only its `chat` and `bos` are used, for the question has a form of its own. None takes the one
            of `facts`.
        options, letters, seed: as in `multiple_choice`.

    Raises:
        UserError: as `multiple_choice`, `tokenize` and `score_answers` do.
    """
    template = template or (facts.template if isinstance(facts, Facts) else Template())
    asked = [multiple_choice(fact, options=options, letters=letters, seed=seed) for fact in facts]
    tokens = tokenize(choice_rows(asked), tokenizer_of(model), choice_form(template), context=context_of(model))
    scores = score_answers(model, tokens, batch_size)
    table = (scores.logprob if letters else scores.mean_logprob).double().reshape(len(asked), options)
    right = torch.tensor([choice.right for choice in asked])
    return ChoiceScores(choice_accuracy(table, right), choice_probability(table, right))


def choice_rows(asked: Sequence[Choice]) -> list[Fact]:
    """Every question with every option as its answer, question by question."""
    return [replace(choice.question, answer=option, distractors=()) for choice in asked for option in choice.options]


def choice_form(template: Template) -> Template:
    """What of a template holds for a multiple choice."""
    return Template(chat=template.chat, bos=template.bos, system=template.system, arguments=template.arguments)


def choice_accuracy(scores: Float[Tensor, "fact option"], right: Int[Tensor, " fact"]) -> Float[Tensor, " fact"]:
    """1 where the right option has the highest score, else 0; where it is one of k highest, 1/k.

    Sharing a tie keeps a model that gives all options the same score at chance, wherever the right one stands.
    """
    best = scores == scores.amax(-1, keepdim=True)
    return best.gather(-1, right[:, None])[:, 0].double() / best.sum(-1)


def choice_probability(scores: Float[Tensor, "fact option"], right: Int[Tensor, " fact"]) -> Float[Tensor, " fact"]:
    """The probability of the right option among the listed ones, at temperature 1: softmax over their scores.

    With scores per token this is the answer's share in open-unlearning's probability with options.
    """
    return scores.softmax(-1).gather(-1, right[:, None])[:, 0]
