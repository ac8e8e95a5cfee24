"""Does a model know a fact: all that one teacher-forced pass tells of its answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..facts import Tokens
from .forward import Model, log_probs, logits_of, measuring
from .memorisation import exact_memorisation, extraction_strength
from .ranks import token_rank


class AnswerScores(NamedTuple):
    """What one pass over the facts tells about their answers, on the CPU.

    `correct`: every answer token is the most probable one. `logprob`: log-probability of the whole answer, in
    nats. `mean_logprob`: the same per answer token. `rank`: mean over the answer tokens of the right token's rank
    (`token_rank`). `memorised` and `extracted`: `exact_memorisation` and `extraction_strength`.
    """

    correct: Bool[Tensor, " fact"]
    logprob: Float[Tensor, " fact"]
    mean_logprob: Float[Tensor, " fact"]
    rank: Float[Tensor, " fact"]
    memorised: Float[Tensor, " fact"]
    extracted: Float[Tensor, " fact"]


def score_answers(model: Model, tokens: Tokens, batch_size: int = 32) -> AnswerScores:
    """Score every answer under teacher forcing, in one pass.

    Args:
        model: a TransformerBridge, a model of transformers, or any callable like them.
        tokens: from `tokenize`.
        batch_size: rows in one forward pass.

    Raises:
        UserError: the model gives logits that are not numbers.
    """
    with measuring(model):
        parts = [
            _score(model, tokens[first : first + batch_size].trim()) for first in range(0, len(tokens), batch_size)
        ]
    return AnswerScores(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _score(model: Model, batch: Tokens) -> AnswerScores:
    scored = logits_of(model, batch.ids, batch.attention)[batch.predicts].cpu()
    targets, rows = batch.targets.cpu(), batch.predicts.nonzero()[:, 0].cpu()
    count = torch.bincount(rows, minlength=len(batch))
    logprobs = log_probs(scored).gather(-1, targets[:, None])[:, 0]
    hits = scored.argmax(-1) == targets
    total = logprobs.new_zeros(len(batch)).index_add_(0, rows, logprobs)
    ranks = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, rows, token_rank(scored, targets))
    memorised = exact_memorisation(hits, rows, count)
    extracted = extraction_strength(hits, rows, count)
    return AnswerScores(memorised == 1, total, total / count, ranks / count, memorised, extracted)


def recall(model: Model, tokens: Tokens, batch_size: int = 32) -> Bool[Tensor, " fact"]:
    """Whether greedy decoding from the prompt gives exactly the answer's tokens, for each fact.

    Read off one teacher-forced pass: greedy decoding meets the answer if and only if the most probable token
    is right at every answer position. Raises as `score_answers` does.
    """
    return score_answers(model, tokens, batch_size).correct


class AnswerLogprob(NamedTuple):
    """Log-probability of each answer in nats: of the whole (`total`) and per answer token (`mean`)."""

    total: Float[Tensor, " fact"]
    mean: Float[Tensor, " fact"]


def answer_logprob(model: Model, tokens: Tokens, batch_size: int = 32) -> AnswerLogprob:
    """Log-probability of each answer given its prompt. Raises as `score_answers` does."""
    scores = score_answers(model, tokens, batch_size)
    return AnswerLogprob(scores.logprob, scores.mean_logprob)
