"""How much of the rest may be lost, when enough is forgotten, and what a collapsed model looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...checking import check_fields
from ...errors import UserError
from ...facts import Facts

Row = Mapping[str, float]
"""What was measured at one step: `forget_recall`, `near_recall`, `text_kl`, …"""

RECALL_GONE = 0.1  # of the start's recall
ENTROPY_LOW = 0.25  # of the start's entropy
ENTROPY_HIGH = 0.5  # of the way from the start's entropy to that of a uniform guess


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The largest allowed disruption; None sets no limit.

    Attributes:
        kl: mean token KL(start ‖ model) on general text, in nats (0.01: Sondej et al., RepSelect, arXiv 2606.17168).
        loss: relative rise of the loss on general text (0.001: Sondej & Yang, CIR, arXiv 2509.11816).
        near, far: the least recall on near and far retain facts, 0 to 1; where their answers are long, of answer
            tokens (`evaluation.graded`).
        halvings: how often the step size is halved, after going back, before the run ends; the stages of a layered
            run share them, and each begins with the step size that the one before came down to.
    """

    kl: float | None = None
    loss: float | None = None
    near: float | None = None
    far: float | None = None
    halvings: int = 6

    def __post_init__(self) -> None:
        check_fields(self)
        limits = (self.kl, self.loss, self.near, self.far)
        if all(limit is None for limit in limits):
            raise UserError("a budget without any limit: give kl, loss, near or far")
        if any(limit is not None and not (math.isfinite(limit) and limit >= 0) for limit in limits):
            raise UserError(f"the limits of a budget are numbers from 0 on, not {self}")
        if any(least is not None and least > 1 for least in (self.near, self.far)):
            raise UserError(f"near and far are shares of facts, from 0 to 1, not {self}")
        if self.halvings < 0:
            raise UserError(f"halvings must be at least 0, not {self.halvings}")

    def check(self, measured: Row, start: Row) -> None:
        """Raises UserError: something limited is not measured, or the start is already outside."""
        for value, _, name, _ in self._limits(measured, start):
            if value is None:
                mend = "give `text`" if name.startswith("text") else "give retain facts that role"
                raise UserError(f"the budget limits {name}, which is not measured: {mend}")
        broken = self.broken(start, start)
        if broken:
            raise UserError(f"the start model already breaks the budget: {broken}")

    def broken(self, measured: Row, start: Row) -> str | None:
        """The first limit that is crossed, in words."""
        for value, limit, name, least in self._limits(measured, start):
            if value is not None and (not value >= limit if least else not value <= limit):
                return f"{name} {value:.4g} {'below' if least else 'above'} {limit:g}"
        return None

    def _limits(self, measured: Row, start: Row) -> list[tuple[float | None, float, str, bool]]:
        """(value, limit, name, whether the limit is the least allowed) of everything that is limited."""
        loss = measured.get("text_loss")
        rise = None if loss is None else loss / start["text_loss"] - 1
        kept = {role: f"{role}_token_recall" if f"{role}_token_recall" in measured else f"{role}_recall"
                for role in ("near", "far")}  # fmt: skip
        found = (
            (measured.get("text_kl"), self.kl, "text KL", False),
            (rise, self.loss, "text loss rise", False),
            (measured.get(kept["near"]), self.near, kept["near"].replace("_", " "), True),
            (measured.get(kept["far"]), self.far, kept["far"].replace("_", " "), True),
        )
        return [(value, limit, name, least) for value, limit, name, least in found if limit is not None]


@dataclass
class Referee:
    """Says after each evaluation whether to go on, to go back, or to end.

    Attributes:
        start: what was measured of the model before.
        budget: the limits, or None.
        goals: columns of recall that must come down, with how far.
        patience: evaluations without a lower answer probability after which there is no progress; None: any number.
        vocabulary: its size, which bounds the entropy of predictions.
    """

    start: Row
    budget: Budget | None
    goals: Mapping[str, float]
    patience: int | None
    vocabulary: int
    crossings: int = 0
    waited: int = 0
    lowest: float = math.inf

    def collapsed(self, row: Row) -> str | None:
        """What has broken down, if anything has."""
        for name, value in row.items():
            if not math.isfinite(value):
                return f"{name.replace('_', ' ')} is not a number"
        for name in ("near", "far", "retain"):
            what = "probability" if f"{name}_token_recall" in row else "recall"  # of long answers
            before, now = self.start.get(f"{name}_{what}"), row.get(f"{name}_{what}")
            if before and now is not None and now < RECALL_GONE * before:
                return f"{what} on {name} facts fell from {before:.2f} to {now:.2f}"
        if "text_entropy" in row:
            before, now = self.start["text_entropy"], row["text_entropy"]
            high = before + ENTROPY_HIGH * (math.log(self.vocabulary) - before)
            if not ENTROPY_LOW * before <= now <= high:
                return f"entropy of predictions on general text went from {before:.2f} to {now:.2f} nats"
        return None

    def crossed(self, row: Row) -> str | None:
        """The limit of the budget that is crossed, if one is; counts the crossings."""
        broken = self.budget.broken(row, self.start) if self.budget else None
        self.crossings += broken is not None
        return broken

    @property
    def exhausted(self) -> bool:
        """Whether the step size was halved as often as the budget allows."""
        return self.budget is not None and self.crossings > self.budget.halvings

    def done(self, row: Row) -> str | None:
        """Why to end at this state, which is inside the budget; None to go on."""
        goals = {name: goal for column, goal in self.goals.items() for name in self._deciding(column, row)}
        if goals and all(row[column] <= goal for column, goal in goals.items()):
            return ", ".join(f"{name.replace('_', ' ')} at or below {goal:.3g}" for name, goal in goals.items())
        probability = row["forget_probability"]
        self.waited = 0 if probability < self.lowest - 1e-6 else self.waited + 1
        self.lowest = min(self.lowest, probability)
        if self.patience is not None and self.waited >= self.patience:
            return f"no progress over {self.waited} evaluations"
        return None

    @staticmethod
    def _deciding(column: str, row: Row) -> tuple[str, ...]:
        """The columns that must come down: recall, and of long answers the probability of an answer token as well."""
        return (column, column.replace("_recall", "_probability")) if "forget_token_recall" in row else (column,)


def check_recall(name: str, level: float | str | None) -> None:
    """Raises UserError: a level of recall to stop at that is none."""
    known = level is None or (level == "chance" if isinstance(level, str) else 0 <= level <= 1)
    if not known:
        raise UserError(f"{name} is a recall between 0 and 1, or 'chance', not {level!r}")


def chance(facts: Facts) -> float:
    """The recall of a guess among each fact's answer and its distractors.

    Raises:
        UserError: a fact without distractors.
    """
    for fact in facts:
        if not fact.distractors:
            raise UserError(
                f"fact {fact.id!r} has no distractors, so its chance level is unknown: give `stop` as a recall"
            )
    return sum(1 / (1 + len(fact.distractors)) for fact in facts) / len(facts)
