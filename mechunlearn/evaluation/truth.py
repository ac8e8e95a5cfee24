"""Truth ratio: are wrong answers as probable as the right one (TOFU, arXiv 2401.06121)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..facts import Fact, Facts, Template, tokenize, wrong_answers
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers

WRONG = 5  # wrong answers a fact, as TOFU has them


class TruthScores(NamedTuple):
    """log R of each fact, in nats, by each of the two means over the wrong answers."""

    geometric: Float[Tensor, " fact"]
    arithmetic: Float[Tensor, " fact"]


def score_truth(
    model: LanguageModel,
    facts: Facts | Sequence[Fact],
    template: Template | None = None,
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> TruthScores:
    """The log truth ratio of every fact.

    Right and wrong answers follow the same prompt: the fact's first held-out prompt, else its first paraphrase,
    else its own. Where a fact has its answer in other words (`paraphrased_answer`, TOFU), the question is asked as it
    is and these words stand for the right answer, as TOFU defines it (arXiv 2401.06121, Eq. 1).
    Wrong answers are distractors, at most five, drawn by `seed` and the fact's id.

    Args:
        model: carries its tokenizer.
        facts: all need an answer and a distractor.
        template: None takes the one of `facts`, or the default for a plain list.

    Raises:
        UserError: a fact without a distractor; as `tokenize` and `score_answers` do.
    """
    template = template or (facts.template if isinstance(facts, Facts) else Template())
    parts = [truth_rows(fact, seed) for fact in facts]
    rows, sizes = [row for part in parts for row in part], [len(part) for part in parts]
    tokens = tokenize(rows, tokenizer_of(model), template, context=context_of(model))
    scored = score_answers(model, tokens, batch_size).mean_logprob.double().split(sizes)
    return TruthScores(
        torch.stack([log_truth_ratio(part[0], part[1:], "geometric") for part in scored]),
        torch.stack([log_truth_ratio(part[0], part[1:], "arithmetic") for part in scored]),
    )


def truth_rows(fact: Fact, seed: int) -> list[Fact]:
    """The right answer and the wrong ones behind the same prompt, the right one first."""
    wrong = wrong_answers(fact)
    if not wrong:
        raise UserError(f"fact {fact.id!r} has no distractors; the truth ratio needs at least one")
    drawn = random.Random(f"{seed}:{fact.id or fact.prompt}").sample(wrong, min(WRONG, len(wrong)))
    prompt, right = (*fact.held_out, *fact.paraphrases, fact.prompt)[0], fact.answer
    if fact.paraphrased_answer is not None:  # TOFU rewords the answer, and asks as ever
        prompt, right = fact.prompt, fact.paraphrased_answer
    return [replace(fact, prompt=prompt, answer=answer) for answer in (right, *drawn)]


def log_truth_ratio(
    right: Float[Tensor, ""], wrong: Float[Tensor, " wrong"], mean: Literal["geometric", "arithmetic"]
) -> Float[Tensor, ""]:
    """log R = log(p̂ of the wrong answers / p of the right one), from log-probabilities per answer token.

    Two different numbers go by this name. TOFU takes the arithmetic mean of the wrong answers' probabilities,
    which the most probable one rules; open-unlearning the geometric mean, exp of the mean log-probability, which
    is never larger. They differ severalfold, so a figure means nothing without the name of its mean. Kept as a
    logarithm: R itself overflows once a model has turned against the right answer.
    """
    average = wrong.mean() if mean == "geometric" else wrong.logsumexp(0) - math.log(len(wrong))
    return average.double() - right.double()


def closer_to_one(log_ratio: Float[Tensor, " fact"]) -> Float[Tensor, " fact"]:
    """min(R, 1/R), the aggregate for facts to forget: 1 = right and wrong are as probable, 0 = far apart.

    It goes up as knowledge goes, but down again where a model has learned to avoid the right answer (R > 1): a
    low value alone does not say that the fact is known. `true_better` tells the two apart.
    """
    return (-log_ratio.abs()).exp()


def true_better(log_ratio: Float[Tensor, " fact"]) -> Float[Tensor, " fact"]:
    """max(0, 1 − R), the aggregate for facts to keep: 1 = only the right answer is probable, 0 = it is no better."""
    return (-log_ratio.expm1()).clamp(min=0)
