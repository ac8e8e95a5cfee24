"""Made-up answers and logits for the loss tests, and the losses written out a second time in plain Python."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mechunlearn.facts import Tokens
from mechunlearn.unlearning import DPO, NPO, GradientDifference
from mechunlearn.unlearning.losses import Answers, Divisors, Scores, answer_nll

VOCABULARY = 11
METHODS = (GradientDifference(0.7, 1.3), NPO(0.3, 0.7, 1.3), DPO(0.3, 0.7, 1.3))


@dataclass(frozen=True)
class Case:
    """Rows and the logits that a model gave at *every* position, as a test wants to tamper with them."""

    tokens: Tokens
    logits: torch.Tensor

    def answers(self) -> Answers:
        return answer_nll(self.logits[self.tokens.predicts], self.tokens)

    def take(self, rows: list[int]) -> "Case":
        return Case(self.tokens[rows], self.logits[rows])

    def padded(self, columns: int, generator: torch.Generator) -> "Case":
        """The same rows with columns on the right that hold ids no vocabulary has, and any logits."""
        old, count = self.tokens, len(self.tokens)

        def wider(part: torch.Tensor, fill: int | bool) -> torch.Tensor:
            return torch.cat([part, torch.full((count, columns), fill, dtype=part.dtype)], dim=1)

        tokens = Tokens(
            torch.where(wider(old.attention, 0).bool(), wider(old.ids, -100), -100),
            wider(old.attention, 0), wider(old.predicts, False), wider(old.answers, False), old.fact_ids,
        )  # fmt: skip
        extra = torch.randn(count, columns, VOCABULARY, generator=generator, dtype=torch.float64)
        return Case(tokens, torch.cat([self.logits.detach(), extra], dim=1))


def random_case(generator: torch.Generator, rows: int) -> Case:
    """Rows of a prompt of 1 to 4 tokens and an answer of 1 to 4 tokens, right-padded."""
    prompts, answers = (torch.randint(1, 5, (rows,), generator=generator) for _ in range(2))
    width = int((prompts + answers).max()) + 1
    place = torch.arange(width)[None, :]
    attention = place < (prompts + answers)[:, None]
    is_answer = attention & (place >= prompts[:, None])
    ids = torch.randint(0, VOCABULARY, (rows, width), generator=generator)
    tokens = Tokens(
        ids, attention.long(), is_answer.roll(-1, dims=1), is_answer, tuple(str(row) for row in range(rows))
    )
    return Case(tokens, torch.randn(rows, width, VOCABULARY, generator=generator, dtype=torch.float64) * 2)


@dataclass(frozen=True)
class Step:
    """Everything that one optimiser step scores."""

    forget: Case
    alternative: Case
    retain: Case
    text: Case | None
    reference: torch.Tensor
    alternative_reference: torch.Tensor

    def change(self, how: Callable[[Case], Case]) -> "Step":
        """The same step with every case changed."""
        names = ("forget", "alternative", "retain", "text")
        return replace(self, **{name: how(getattr(self, name)) for name in names})

    def scores(self, rows: list[int] | None = None, parts: int = 1) -> Scores:
        """Of the whole step, or of the given rows as one of `parts` parts."""
        chosen = list(range(len(self.reference))) if rows is None else rows
        return Scores(
            forget=self.forget.take(chosen).answers(),
            retain=self.retain.take(chosen).answers(),
            divisors=Divisors(
                len(self.reference) / parts,
                float(self.forget.tokens.predicts.sum()) / parts,
                float(self.retain.tokens.predicts.sum()) / parts,
                0.0 if self.text is None else float(self.text.tokens.predicts.sum()) / parts,
            ),
            reference=self.reference[chosen],
            alternative=self.alternative.take(chosen).answers(),
            alternative_reference=self.alternative_reference[chosen],
            text=None if self.text is None else self.text.take(chosen).answers(),
        )


def random_step(seed: int, rows: int = 6, text: bool = True) -> Step:
    generator = torch.Generator().manual_seed(seed)
    return Step(
        *(random_case(generator, rows) for _ in range(3)),
        random_case(generator, rows) if text else None,
        *(3 + torch.randn(rows, generator=generator, dtype=torch.float64) for _ in range(2)),
    )


def summed_nll(case: Case, row: int) -> tuple[float, int]:
    """−log p of one row's answer and its length, token by token with plain floats."""
    total, count = 0.0, 0
    for place in range(case.tokens.ids.shape[1]):
        if case.tokens.answers[row, place]:
            line = case.logits[row, place - 1].tolist()
            total += math.log(sum(math.exp(value) for value in line)) - line[int(case.tokens.ids[row, place])]
            count += 1
    return total, count


def cross_entropy(case: Case) -> float:
    rows = [summed_nll(case, row) for row in range(len(case.tokens))]
    return sum(total for total, _ in rows) / sum(count for _, count in rows)


def written_out(method: GradientDifference | NPO | DPO, step: Step) -> float:
    """The loss as its paper states it, from plain floats."""
    retain = cross_entropy(step.retain) + (cross_entropy(step.text) if step.text is not None else 0.0)
    if isinstance(method, GradientDifference):
        forget = -cross_entropy(step.forget)
    else:
        forget = 0.0
        for row in range(len(step.reference)):
            gained = float(step.reference[row]) - summed_nll(step.forget, row)[0]
            if isinstance(method, NPO):
                margin = -method.beta * gained
            else:
                other = float(step.alternative_reference[row]) - summed_nll(step.alternative, row)[0]
                margin = method.beta * (other - gained)
            forget += 2 / method.beta * math.log(1 + math.exp(-margin)) / len(step.reference)
    return method.forget_weight * forget + method.retain_weight * retain
