"""What a change costs elsewhere: loss on general text, and divergence from a reference there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..facts import Tokens, tokenize_texts
from ..models.forward import in_chunks, log_probs, measuring, scored_logits
from ..models.properties import LanguageModel, context_of, tokenizer_of


class PerText(NamedTuple):
    """A quantity summed over the predicted tokens of each text, in nats, and how many these are."""

    total: Float[Tensor, " text"]
    tokens: Int[Tensor, " text"]

    @property
    def mean(self) -> float:
        """The mean over all predicted tokens."""
        return float(self.total.double().sum() / self.tokens.sum())


def per_text_loss(model: LanguageModel, texts: Sequence[str] | Tokens, batch_size: int = 16) -> PerText:
    """Negative log-likelihood of the tokens of each text (a row of `Tokens`, where those are given).

    Texts longer than the model's context are cut into consecutive rows and added up again.

    Raises:
        UserError: no text, a text of one token, a model without a tokenizer, logits that are not numbers.
    """

    def nll(batch: Tokens) -> Float[Tensor, " scored"]:
        found = log_probs(scored_logits(model, batch))
        return -found.gather(-1, batch.targets.to(found.device)[:, None])[:, 0]

    with measuring(model):
        return _sum_by_text(model, _tokens(model, texts), nll, batch_size)


def per_text_kl(
    model: LanguageModel, reference: LanguageModel, texts: Sequence[str] | Tokens, batch_size: int = 16
) -> PerText:
    """KL(reference ‖ model) of the next-token distributions, summed over the predicted tokens of each text.

    Raises as `per_text_loss` does.
    """

    def kl(batch: Tokens) -> Float[Tensor, " scored"]:
        ours, theirs = _both(model, reference, batch)
        return torch.nn.functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)

    with measuring(model, reference):
        return _sum_by_text(model, _tokens(model, texts), kl, batch_size)


def text_loss(model: LanguageModel, texts: Sequence[str] | Tokens, batch_size: int = 16) -> float:
    """Mean negative log-likelihood per token, in nats. Raises as `per_text_loss` does."""
    return per_text_loss(model, texts, batch_size).mean


def text_kl(
    model: LanguageModel, reference: LanguageModel, texts: Sequence[str] | Tokens, batch_size: int = 16
) -> float:
    """Mean KL(reference ‖ model) per token, in nats. Raises as `per_text_loss` does."""
    return per_text_kl(model, reference, texts, batch_size).mean


class TextScores(NamedTuple):
    """Means over all predicted tokens of general text, in nats: −log p, KL(reference ‖ model), entropy of the model."""

    loss: float
    kl: float
    entropy: float


def text_scores(
    model: LanguageModel, reference: LanguageModel, texts: Sequence[str] | Tokens, batch_size: int = 16
) -> TextScores:
    """Loss, divergence and entropy in one pass of each model. Raises as `per_text_kl` does."""
    tokens, total, count = _tokens(model, texts), torch.zeros(3, dtype=torch.float64), 0
    with measuring(model, reference):
        for _, batch in in_chunks(model, tokens, batch_size):
            ours, theirs = _both(model, reference, batch)
            loss = -ours.gather(-1, batch.targets.to(ours.device)[:, None])
            kl = torch.nn.functional.kl_div(ours, theirs, reduction="none", log_target=True)
            entropy = torch.special.entr(ours.exp())
            total += torch.stack([part.double().sum() for part in (loss, kl, entropy)]).cpu()
            count += len(ours)
    return TextScores(*(total / count).tolist())


def _both(
    model: LanguageModel, reference: LanguageModel, batch: Tokens
) -> tuple[Float[Tensor, "scored vocab"], Float[Tensor, "scored vocab"]]:
    """Log-probabilities of the model and of the reference where a token is predicted, on the model's device."""
    ours, theirs = (log_probs(scored_logits(one, batch)) for one in (model, reference))
    theirs = theirs.to(ours.device)
    if theirs.shape != ours.shape:
        sizes = f"{theirs.shape[-1]} and {ours.shape[-1]}"
        raise UserError(f"the two models have vocabularies of different sizes: {sizes}")
    return ours, theirs


def _tokens(model: LanguageModel, texts: Sequence[str] | Tokens) -> Tokens:
    if isinstance(texts, Tokens):
        return texts
    return tokenize_texts(texts, tokenizer_of(model), context=context_of(model))


def _sum_by_text(
    model: LanguageModel, tokens: Tokens, measure: Callable[[Tokens], Float[Tensor, " scored"]], batch_size: int
) -> PerText:
    """Add up what `measure` gives at each predicted token; rows with the same id are pieces of one text."""
    number = {name: place for place, name in enumerate(dict.fromkeys(tokens.fact_ids))}
    text_of_row = torch.tensor([number[name] for name in tokens.fact_ids])
    total = torch.zeros(len(number), dtype=torch.float64)
    count = torch.zeros(len(number), dtype=torch.long)
    for rows, batch in in_chunks(model, tokens, batch_size):
        texts = text_of_row[batch.predicts.nonzero()[:, 0].cpu() + rows.start]
        total.index_add_(0, texts, measure(batch).double().cpu())
        count.index_add_(0, texts, torch.ones_like(texts))
    return PerText(total, count)
