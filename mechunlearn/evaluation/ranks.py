"""The rank of the right token among all tokens."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def token_rank(logits: Float[Tensor, "scored vocab"], targets: Int[Tensor, " scored"]) -> Float[Tensor, " scored"]:
    """The place of each target when tokens are sorted by their logits; 1 = top.

    Tokens with exactly equal logits share the mean of their places. Counting only the greater ones would put
    everything at the top for a model that unlearning left with one and the same logit everywhere.
    """
    right = logits.gather(-1, targets[:, None])
    ahead, equal = (logits > right).sum(-1), (logits == right).sum(-1)
    return ahead.double() + (equal + 1).double() / 2
