"""Distances between the donor's predictions and a patched model's, per fact, at the positions that predict the answer.

    mse            mean over positions and vocabulary of (z − z')², raw logits; recovery from it is the paper's
                   Knowledge Recovery Score (2410.06606)
    mse_centred    the same after each position's mean difference is taken out: what softmax cannot see does not count
    kl             mean over positions of KL(donor ‖ patched), nats
    answer_logprob |log p(answer) of the donor − of the patched model|, summed over the answer's tokens, nats

Recovery is 1 − d(donor, patched) / d(donor, recipient): 0 = as the recipient, 1 = as the donor, unbounded below.

A distance of your own is measured, summarised and drawn like these, once it has a name in `METRICS`:

    METRICS["total_variation"] = Metric("total variation", lambda pair: pair.mean((pair.p - pair.q).abs().sum(-1) / 2))
"""  # fmt: skip

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

COMPARED_AT_ONCE = 4_000_000  # logits compared at a time: 32 MB in float64, some eight times over


class Counts(NamedTuple):
    """How many positions of each fact are compared, and how many predict its answer."""

    compared: Int[Tensor, " fact"]
    predicts: Int[Tensor, " fact"]

    @classmethod
    def of(
        cls,
        facts: Int[Tensor, " scored"],
        compared: Bool[Tensor, " scored"],
        predicts: Bool[Tensor, " scored"],
        n_facts: int,
    ) -> Counts:
        """Counted over scored positions, each of which belongs to one of `facts`."""
        return cls(*(torch.bincount(facts[which], minlength=n_facts) for which in (compared, predicts)))


@dataclass(frozen=True)
class Reference:
    """The donor's predictions at the scored positions of a batch of facts."""

    logits: Float[Tensor, "scored vocab"]
    targets: Int[Tensor, " scored"]  # the token that follows
    facts: Int[Tensor, " scored"]  # the row of the batch that each scored position belongs to
    compared: Bool[Tensor, " scored"]  # positions that distances of predictions count
    predicts: Bool[Tensor, " scored"]  # positions that predict an answer token
    n_facts: int
    counts: Counts | None = None  # of all positions, where these are a part of them

    @property
    def of_all(self) -> Counts:
        """How many positions each fact has in all."""
        return Counts.of(self.facts, self.compared, self.predicts, self.n_facts) if self.counts is None else self.counts

    def parts(self, size: int) -> Iterator[tuple[slice, Reference]]:
        """As many scored positions at a time, and where they stand."""
        if len(self.logits) <= size:
            yield slice(None), self
            return
        for first in range(0, len(self.logits), size):
            at = slice(first, first + size)
            yield (
                at,
                Reference(
                    self.logits[at],
                    self.targets[at],
                    self.facts[at],
                    self.compared[at],
                    self.predicts[at],
                    self.n_facts,
                    self.of_all,
                ),
            )

    def of_first_fact(self, logits: Float[Tensor, "scored vocab"]) -> Reference:
        """These logits as the reference of the batch's first fact alone."""
        own = self.facts == 0
        return Reference(
            logits[own], self.targets[own], self.facts[own], self.compared[own], self.predicts[own], n_facts=1
        )


class Pair:
    """The donor's predictions beside those of some patches, in float64: they add no rounding of their own.

    `donor` has the shape (scored, vocab), everything of the patched (patch, scored, vocab).
    """

    def __init__(self, reference: Reference, logits: Float[Tensor, "patch scored vocab"]) -> None:
        self.reference = reference
        self.donor, self.patched = reference.logits.double(), logits.double()

    @cached_property
    def difference(self) -> Float[Tensor, "patch scored vocab"]:
        """Patched − donor."""
        return self.patched - self.donor

    @cached_property
    def donor_log(self) -> Float[Tensor, "scored vocab"]:
        """Log-probabilities of the donor."""
        return self.donor.log_softmax(-1)

    @cached_property
    def patched_log(self) -> Float[Tensor, "patch scored vocab"]:
        """Log-probabilities of the patched model."""
        return self.patched.log_softmax(-1)

    @property
    def p(self) -> Float[Tensor, "scored vocab"]:
        """Probabilities of the donor."""
        return self.donor_log.exp()

    @property
    def q(self) -> Float[Tensor, "patch scored vocab"]:
        """Probabilities of the patched model."""
        return self.patched_log.exp()

    def at_target(self, values: Float[Tensor, "patch scored vocab"]) -> Float[Tensor, "patch scored"]:
        """The values of the token that follows."""
        targets = rearrange(self.reference.targets, "scored -> 1 scored 1").expand(len(values), -1, 1)
        return values.gather(-1, targets)[..., 0]

    def mean(self, values: Float[Tensor, "patch scored"]) -> Float[Tensor, "patch fact"]:
        """The mean over each fact's compared positions; of a part, what it adds to that mean."""
        return self._sum(values, self.reference.compared) / self.reference.of_all.compared.clamp(min=1)

    def over_answer(self, values: Float[Tensor, "patch scored"]) -> Float[Tensor, "patch fact"]:
        """The sum over the positions that predict each fact's answer."""
        return self._sum(values, self.reference.predicts)

    def _sum(
        self, values: Float[Tensor, "patch scored"], counted: Bool[Tensor, " scored"]
    ) -> Float[Tensor, "patch fact"]:
        total = values.new_zeros(len(values), self.reference.n_facts)
        return total.index_add_(1, self.reference.facts, values * counted)


@dataclass(frozen=True)
class Metric:
    """A distance.

    Attributes:
        words: what figures and sentences call it.
        distance: of every patch and fact; 0 where the patched model predicts what the donor does. Of an answer that is
            too long for the memory it is taken part by part, and added up.
        noise: how the rounding of logits enters it: "squared" or "linear".
        of_sum: what is made of the sum of all parts.
    """

    words: str
    distance: Callable[[Pair], Float[Tensor, "patch fact"]]
    noise: Literal["squared", "linear"] = "linear"
    of_sum: Callable[[Tensor], Tensor] = lambda total: total

    @property
    def margin(self) -> float:
        """How many times the noise a denominator must exceed to be defined: an amplitude of 1 % of the effect."""
        return 1e4 if self.noise == "squared" else 1e2

    def rounding(self, step: float) -> float:
        """The noise that logits have which are rounded to this step."""
        return step**2 if self.noise == "squared" else step


def _mse(pair: Pair) -> Float[Tensor, "patch fact"]:
    return pair.mean(pair.difference.square().mean(-1))


def _mse_centred(pair: Pair) -> Float[Tensor, "patch fact"]:
    return pair.mean((pair.difference - pair.difference.mean(-1, keepdim=True)).square().mean(-1))


def _kl(pair: Pair) -> Float[Tensor, "patch fact"]:
    # KL = log Σ p e^δ' with δ' = δ − Σ p δ: exact for small differences, where a difference of two log-sums is noise.
    shifted = pair.difference - (pair.p * pair.difference).sum(-1, keepdim=True)
    return pair.mean(torch.logsumexp(pair.donor_log + shifted, -1).clamp(min=0))


def _answer_logprob(pair: Pair) -> Float[Tensor, "patch fact"]:
    return pair.over_answer(pair.at_target(pair.patched_log - pair.donor_log))


METRICS: dict[str, Metric] = {
    "mse": Metric("squared difference of the logits", _mse, "squared"),
    "mse_centred": Metric("squared difference of the centred logits", _mse_centred, "squared"),
    "kl": Metric("KL divergence", _kl, "squared"),
    "answer_logprob": Metric("answer's log-probability", _answer_logprob, of_sum=torch.abs),
}
PAPER_METRIC = "mse"  # what tables, figures and sentences show where nobody asks for another


def distances(
    reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> dict[str, Float[Tensor, "patch fact"]]:
    """Every distance of every patch and fact."""
    return {name: value for name, value in measured(reference, logits).items() if name in METRICS}


def measured(
    reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> dict[str, Float[Tensor, "patch fact"]]:
    """Every distance of every patch and fact, and what `of_answer` says."""
    return whole(summed(reference, logits))


def summed(reference: Reference, logits: Float[Tensor, "patch scored vocab"]) -> dict[str, Float[Tensor, "patch fact"]]:
    """What `measured` gives, as sums that can be added up over parts of long answers before `whole` is made of them.

    A bounded number of logits is compared at a time.
    """
    most = max(1, COMPARED_AT_ONCE // max(1, logits[0].numel()))
    found = [_of_some(reference, some) for some in logits.split(most)]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def whole(sums: Mapping[str, Float[Tensor, "patch fact"]]) -> dict[str, Float[Tensor, "patch fact"]]:
    """The measurements, of their sums over all parts."""
    return {name: METRICS[name].of_sum(value) if name in METRICS else value for name, value in sums.items()}


def _of_some(
    reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> dict[str, Float[Tensor, "patch fact"]]:
    total: dict[str, Tensor] = {}
    for at, part in reference.parts(max(1, COMPARED_AT_ONCE // logits.shape[-1])):
        pair = Pair(part, logits[:, at])
        values = {name: metric.distance(pair) for name, metric in METRICS.items()} | of_answer(pair)
        total = {name: value + total[name] if total else value for name, value in values.items()}
    return total


def of_answer(pair: Pair) -> dict[str, Float[Tensor, "patch fact"]]:
    """What the patched model gives the answer itself: `logprob`, summed over its tokens (nats), and `rank`.

    The rank is the mean over the answer's tokens of the right token's place (1 = most probable); equal logits share
    the mean of their places.
    """
    at = pair.reference.predicts
    logits, targets = pair.patched[:, at], pair.reference.targets[at]
    right = logits.gather(-1, rearrange(targets, "scored -> 1 scored 1").expand(len(logits), -1, 1))
    places = (logits > right).sum(-1).double() + ((logits == right).sum(-1) + 1).double() / 2
    ranks = torch.zeros_like(pair.patched[..., 0])
    ranks[:, at] = places
    count = pair.reference.of_all.predicts.clamp(min=1)
    logprob = pair.over_answer(pair.at_target(pair.patched_log))
    return {"logprob": logprob, "rank": pair.over_answer(ranks) / count}


def rounding(reference: Reference, dtype: torch.dtype) -> dict[str, float]:
    """The smallest noise that logits of this size and precision can have, by metric."""
    squares = sum(float(part.logits.double().square().sum()) for _, part in reference.parts(
        max(1, COMPARED_AT_ONCE // reference.logits.shape[-1])
    ))  # fmt: skip
    step = torch.finfo(dtype).eps * math.sqrt(squares / reference.logits.numel())
    return {name: metric.rounding(step) for name, metric in METRICS.items()}
