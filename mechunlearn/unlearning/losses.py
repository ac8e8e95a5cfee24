"""What every unlearning loss is made of: NLLs of answers, summed per fact or averaged per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..facts import Tokens


@dataclass(frozen=True)
class Answers:
    """The likelihood of each row's answer: `nll` is the *sum* of −log p over its `tokens` tokens, in nats."""

    nll: Float[Tensor, " fact"]
    tokens: Int[Tensor, " fact"]


def answer_nll(logits: Float[Tensor, "scored vocab"], tokens: Tokens) -> Answers:
    """−log p of every answer, from the logits at the positions that predict it.

    `logits` holds one row per True of `tokens.predicts`, in reading order, so prompts and padding have no
    way in, whatever ids stand there. Computed in fp32 at least (fp64 stays fp64).
    """
    rows = tokens.predicts.nonzero()[:, 0]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nll = F.cross_entropy(wide, tokens.targets, reduction="none")
    summed = nll.new_zeros(len(tokens)).index_add(0, rows, nll)
    return Answers(summed, tokens.predicts.sum(dim=1))


@dataclass(frozen=True)
class Divisors:
    """What the means of a loss divide by.

    A mean over an optimiser step that is computed in k parts is not the mean of the parts' means when these
    hold different numbers of tokens. Each part therefore divides its sums by the whole step's counts over k;
    averaging the k parts then gives exactly the value and the gradient of the undivided step.
    """

    forget_facts: float
    forget_tokens: float
    retain_tokens: float
    text_tokens: float


@dataclass(frozen=True)
class Scores:
    """All that a method's loss may look at, for one batch.

    `reference` and `alternative_reference` are summed NLLs under the frozen start model, one per forget row;
    `alternative` scores another answer to the same prompts. They are None for methods that do not ask for
    them, and `text` is None when no general text is retained.
    """

    forget: Answers
    retain: Answers
    divisors: Divisors
    reference: Float[Tensor, " fact"] | None = None
    alternative: Answers | None = None
    alternative_reference: Float[Tensor, " fact"] | None = None
    text: Answers | None = None

    def forget_mean(self, per_fact: Float[Tensor, " fact"]) -> Float[Tensor, ""]:
        """Mean over the forget facts of the optimiser step."""
        return per_fact.sum() / self.divisors.forget_facts

    @property
    def forget_cross_entropy(self) -> Float[Tensor, ""]:
        """Mean NLL over the forget answers' tokens."""
        return self.forget.nll.sum() / self.divisors.forget_tokens

    @property
    def retain_cross_entropy(self) -> Float[Tensor, ""]:
        """Mean NLL over the retain answers' tokens."""
        return self.retain.nll.sum() / self.divisors.retain_tokens

    @property
    def text_cross_entropy(self) -> Float[Tensor, ""]:
        """Mean NLL over the tokens of the retained general text; 0 without any."""
        if self.text is None:
            return self.retain.nll.new_zeros(())
        return self.text.nll.sum() / self.divisors.text_tokens


def weigh(
    scores: Scores, forget: Float[Tensor, ""], forget_weight: float, retain_weight: float
) -> dict[str, Float[Tensor, ""]]:
    """γ·forget + α·(CE on retain facts + CE on retained text), beside its parts."""
    retain, text = scores.retain_cross_entropy, scores.text_cross_entropy
    return {
        "loss": forget_weight * forget + retain_weight * (retain + text),
        "forget": forget,
        "retain": retain,
        "text": text,
    }
