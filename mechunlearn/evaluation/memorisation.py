"""How much of an answer's wording is kept: token by token under teacher forcing, without decoding."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def exact_memorisation(
    hits: Bool[Tensor, " scored"], rows: Int[Tensor, " scored"], count: Int[Tensor, " fact"]
) -> Float[Tensor, " fact"]:
    """The share of a fact's answer tokens that are the most probable one; 1 = all of them.

    open-unlearning leaves the last labelled token out, to be rid of an end-of-text token. Our answers have none,
    so every token counts.

    Args:
        hits: at each answer token, whether it is the most probable one.
        rows: the fact of each answer token.
        count: the number of answer tokens of each fact.
    """
    return torch.zeros(len(count), dtype=torch.float64).index_add_(0, rows, hits.double()) / count


def extraction_strength(
    hits: Bool[Tensor, " scored"], rows: Int[Tensor, " scored"], count: Int[Tensor, " fact"]
) -> Float[Tensor, " fact"]:
    """The longest end of the answer that follows by itself once the rest is given, as a share of the answer.

    1 = the prompt alone brings out all of it, 0 = not even the last token follows. In formula 1 − k/n, where k is
    the smallest number of given answer tokens after which every token is the most probable one (as in
    open-unlearning). The published form stops counting at k = n − 1: an answer of which nothing matches then
    scores 1/n, more for shorter answers, and cannot be told from one whose last token matches. Here k goes on
    to n.

    Args:
        hits: at each answer token, in the order of the text, whether it is the most probable one.
        rows: the fact of each answer token, ascending.
        count: the number of answer tokens of each fact.
    """
    place = torch.arange(len(hits)) - (count.cumsum(0) - count)[rows]
    # How many tokens must be given: up to and with the last one that is missed.
    given = torch.zeros_like(count).scatter_reduce_(0, rows, (place + 1) * ~hits, "amax")
    return 1 - given.double() / count
