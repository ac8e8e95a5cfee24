"""What holds the rest of the model in place while it forgets: the terms to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .step import Step


def cross_entropy(step: Step, kind: str) -> Float[Tensor, ""]:
    """Mean −log p of an answer token (of every token, on general text)."""
    return step.see(kind).cross_entropy


def kl(step: Step, kind: str) -> Float[Tensor, ""]:
    """Mean KL(start ‖ model) of the next-token distribution where an answer token is predicted.

    Padding and prompts stay out of the mean: with them, as often published, it falls with the length of the padding.
    """
    theirs, seen = step.start(kind).scored.log_softmax(-1), step.see(kind)
    ours = seen.scored.log_softmax(-1)
    return seen.over_answers(F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1))


def representation(step: Step, kind: str) -> Float[Tensor, ""]:
    """Mean over blocks and tokens of ‖h − h⁰‖²/d, h the residual stream behind a block, h⁰ the start model's."""
    return distance(step, kind, [f"blocks.{layer}.hook_resid_post" for layer in range(step.n_layers)])


def distance(step: Step, kind: str, hooks: Sequence[str]) -> Float[Tensor, ""]:
    """Mean over these activations and tokens of ‖h − h⁰‖²/d."""
    seen, start = step.see(kind, hooks, logits=False), step.start(kind, hooks, logits=False)
    squares = [(seen.states[hook] - start.states[hook]).square() for hook in hooks]
    distances = [seen.over_tokens(reduce(square, "fact pos d -> fact pos", "mean")) for square in squares]
    return torch.stack(distances).mean()


def drift(step: Step, kind: str) -> Float[Tensor, ""]:
    """Mean over tokens of ‖h − h⁰‖/‖h⁰‖ at the entry of the block 3/8 of the way up (CIR, arXiv 2509.11816: 12 of 32).

    The published code divides by the batch's mean norm; by the token's own, a step may be split.
    """
    hook = f"blocks.{max(1, round(3 / 8 * step.n_layers)) - 1}.hook_resid_post"
    seen, start = step.see(kind, [hook], logits=False), step.start(kind, [hook], logits=False).states[hook]
    moved = torch.linalg.vector_norm(seen.states[hook] - start, dim=-1)
    return seen.over_tokens(moved / torch.linalg.vector_norm(start, dim=-1).clamp_min(1e-12))


RETAIN: dict[str, Callable[[Step, str], Float[Tensor, ""]]] = {
    "cross_entropy": cross_entropy,
    "kl": kl,
    "representation": representation,
    "drift": drift,
}
