"""Does a model know a fact: greedy recall and the probability of the answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..facts import Tokens
from .forward import Model, log_probs, logits_of, measuring


class AnswerScores(NamedTuple):
    """What one pass over the facts tells about their answers, on the CPU.

    `correct`: every answer token is the most probable one. `logprob`: log-probability of the whole answer, in
    nats. `mean_logprob`: the same per answer token.
    """

    correct: Bool[Tensor, " fact"]
    logprob: Float[Tensor, " fact"]
    mean_logprob: Float[Tensor, " fact"]


def score_answers(model: Model, tokens: Tokens, batch_size: int = 32) -> AnswerScores:
    """Score every answer under teacher forcing, in one pass.

    Args:
        model: a TransformerBridge, a model of transformers, or any callable like them.
        tokens: from `tokenize`.
        batch_size: rows in one forward pass.

    Raises:
        UserError: the model gives logits that are not numbers.
    """
    correct, total, mean = [], [], []
    with measuring(model):
        for first in range(0, len(tokens), batch_size):
            batch = tokens[first : first + batch_size].trim()
            scored = logits_of(model, batch.ids, batch.attention)[batch.predicts].cpu()
            targets = batch.targets.cpu()
            logprobs = log_probs(scored).gather(-1, targets[:, None])[:, 0]
            rows = batch.predicts.nonzero()[:, 0].cpu()
            count = torch.bincount(rows, minlength=len(batch))
            hits = torch.zeros(len(batch), dtype=torch.long).index_add_(0, rows, (scored.argmax(-1) == targets).long())
            sums = logprobs.new_zeros(len(batch)).index_add_(0, rows, logprobs)
            correct.append(hits == count)
            total.append(sums)
            mean.append(sums / count)
    return AnswerScores(torch.cat(correct), torch.cat(total), torch.cat(mean))


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
