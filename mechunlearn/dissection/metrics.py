"""Distances between the donor's predictions and a patched model's, per fact, at the positions that predict the answer.

    mse            mean over positions and vocabulary of (z − z')², raw logits; recovery from it is the paper's
                   Knowledge Recovery Score (2410.06606)
    mse_centred    the same after each position's mean difference is taken out: what softmax cannot see does not count
    kl             mean over positions of KL(donor ‖ patched), nats
    answer_logprob |log p(answer) of the donor − of the patched model|, summed over the answer's tokens, nats

Recovery is 1 − d(donor, patched) / d(donor, recipient): 0 = as the recipient, 1 = as the donor, unbounded below.
"""  # fmt: skip

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

METRICS = ("mse", "mse_centred", "kl", "answer_logprob")
# How many times the numerical noise a denominator must exceed to be defined. Noise enters the first three squared
# (an amplitude of 1 % of the effect), the last one linearly.
MARGIN = {"mse": 1e4, "mse_centred": 1e4, "kl": 1e4, "answer_logprob": 1e2}


@dataclass(frozen=True)
class Reference:
    """The donor's predictions at the scored positions of a batch of facts."""

    logits: Float[Tensor, "scored vocab"]
    targets: Int[Tensor, " scored"]  # the token that follows
    facts: Int[Tensor, " scored"]  # the row of the batch that each scored position belongs to
    compared: Bool[Tensor, " scored"]  # positions that the three distances of predictions count
    predicts: Bool[Tensor, " scored"]  # positions that predict an answer token
    n_facts: int


def distances(
    reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> dict[str, Float[Tensor, "patch fact"]]:
    """The four distances of every patch and fact. Computed in float64, so that they add no rounding of their own."""
    donor = reference.logits.double()
    difference = logits.double() - donor
    donor_log = donor.log_softmax(-1)
    centred = difference - difference.mean(-1, keepdim=True)
    # KL = log Σ p e^δ' with δ' = δ − Σ p δ: exact for small differences, where a difference of two log-sums is noise.
    shifted = difference - (donor_log.exp() * difference).sum(-1, keepdim=True)
    log_patched = (logits.double()).log_softmax(-1)
    at_target = (log_patched - donor_log).gather(-1, _targets(reference, len(logits)))[..., 0]
    return {
        "mse": _mean(difference.square().mean(-1), reference),
        "mse_centred": _mean(centred.square().mean(-1), reference),
        "kl": _mean(torch.logsumexp(donor_log + shifted, -1).clamp(min=0), reference),
        "answer_logprob": _sum(at_target, reference.predicts, reference).abs(),
    }


def answer_logprob(reference: Reference, logits: Float[Tensor, "scored vocab"]) -> Float[Tensor, " fact"]:
    """Log-probability of each fact's answer, summed over its tokens, nats."""
    at_target = logits.double().log_softmax(-1).gather(-1, reference.targets[:, None])[:, 0]
    return _sum(at_target[None], reference.predicts, reference)[0]


def rounding(reference: Reference, dtype: torch.dtype) -> dict[str, float]:
    """The smallest noise that logits of this size and precision can have."""
    step = torch.finfo(dtype).eps * float(reference.logits.double().square().mean().sqrt())
    return {"mse": step**2, "mse_centred": step**2, "kl": step**2, "answer_logprob": step}


def _targets(reference: Reference, patches: int) -> Int[Tensor, "patch scored 1"]:
    return rearrange(reference.targets, "scored -> 1 scored 1").expand(patches, -1, 1)


def _mean(values: Float[Tensor, "patch scored"], reference: Reference) -> Float[Tensor, "patch fact"]:
    ones = torch.ones_like(values[:1])
    return _sum(values, reference.compared, reference) / _sum(ones, reference.compared, reference).clamp(min=1)


def _sum(
    values: Float[Tensor, "patch scored"], counted: Bool[Tensor, " scored"], reference: Reference
) -> Float[Tensor, "patch fact"]:
    total = values.new_zeros(len(values), reference.n_facts)
    return total.index_add_(1, reference.facts, values * counted)
