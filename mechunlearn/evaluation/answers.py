"""Does a model know a fact: all that one teacher-forced pass tells of its answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..facts import Tokens
from ..models.forward import in_chunks, log_probs, measuring, scored_logits
from ..models.properties import LanguageModel
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


def score_answers(model: LanguageModel, tokens: Tokens, batch_size: int = 32) -> AnswerScores:
    """Score every answer under teacher forcing, in one pass.

    Args:
        model: a TransformerBridge, a model of transformers, or any callable like them.
        tokens: from `tokenize`.
        batch_size: rows in one forward pass.

    Raises:
        UserError: the model gives logits that are not numbers.
    """
    found = []
    with measuring(model):
        for rows, batch in in_chunks(model, tokens, batch_size):
            places = batch.predicts.nonzero()[:, 0].cpu() + rows.start
            found.append((places, *_by_token(scored_logits(model, batch), batch)))
    rows, logprobs, hits, ranks = (torch.cat(column) for column in zip(*found, strict=True))
    return _by_fact(rows, logprobs, hits, ranks, len(tokens))


def _by_token(
    logits: Float[Tensor, "scored vocab"], batch: Tokens
) -> tuple[Float[Tensor, " scored"], Bool[Tensor, " scored"], Float[Tensor, " scored"]]:
    """Log-probability, hit and rank of every answer token, computed where the logits are, on the CPU."""
    targets = batch.targets.to(logits.device)
    logprobs = log_probs(logits).gather(-1, targets[:, None])[:, 0]
    return logprobs.cpu(), (logits.argmax(-1) == targets).cpu(), token_rank(logits, targets).cpu()


def _by_fact(
    rows: Int[Tensor, " scored"],
    logprobs: Float[Tensor, " scored"],
    hits: Bool[Tensor, " scored"],
    ranks: Float[Tensor, " scored"],
    size: int,
) -> AnswerScores:
    count = torch.bincount(rows, minlength=size)
    total = logprobs.new_zeros(size).index_add_(0, rows, logprobs)
    rank = torch.zeros(size, dtype=torch.float64).index_add_(0, rows, ranks)
    memorised = exact_memorisation(hits, rows, count)
    extracted = extraction_strength(hits, rows, count)
    return AnswerScores(memorised == 1, total, total / count, rank / count, memorised, extracted)


def recall(model: LanguageModel, tokens: Tokens, batch_size: int = 32) -> Bool[Tensor, " fact"]:
    """Whether greedy decoding from the prompt gives exactly the answer's tokens, for each fact.

    Read off one teacher-forced pass: greedy decoding meets the answer if and only if the most probable token
    is right at every answer position. Raises as `score_answers` does.
    """
    return score_answers(model, tokens, batch_size).correct


class AnswerLogprob(NamedTuple):
    """Log-probability of each answer in nats: of the whole (`total`) and per answer token (`mean`)."""

    total: Float[Tensor, " fact"]
    mean: Float[Tensor, " fact"]


def answer_logprob(model: LanguageModel, tokens: Tokens, batch_size: int = 32) -> AnswerLogprob:
    """Log-probability of each answer given its prompt. Raises as `score_answers` does."""
    scores = score_answers(model, tokens, batch_size)
    return AnswerLogprob(scores.logprob, scores.mean_logprob)
