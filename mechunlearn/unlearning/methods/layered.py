"""Layered Unlearning: forget in stages over folds of the data, each time retaining the folds that are still to come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ...checking import check_fields
from ...errors import UserError, check_whole
from ...facts import Fact, Facts
from ..loop.budget import check_recall
from ..method import Method

MOST = 1000  # folds, and times that they are gone through


@dataclass(frozen=True)
class Layer:
    """One stage: what it forgets and retains, and what a fact of either counts for."""

    number: int
    forget: Facts
    retain: Facts
    forget_weights: dict[int, float]  # by fold
    retain_weights: dict[int | None, float]  # by fold of the forget set; None: the retain facts proper


@dataclass(frozen=True, kw_only=True)
class Layered:
    """Stage i of k runs `method` to forget folds 1…i and to retain folds i+1…k together with the retain set.

    Qian et al., "Layered Unlearning for Adversarial Relearning" (arXiv 2505.09500). "Layers" are stages over folds
    of the data, not network layers. Within stage i the forget term of fold j has the coefficient (α/i)·δ^(i−j), the
    retain term of a fold still to come ρ/(k−i), that of the retain set R; these multiply the method's own weights.
    Retain targets, and whatever else the method takes from the start model, are those of the stage's start. A stage
    begins with the step size that the one before had come down to: both spend one budget, counted from the first model,
    and the paper, too, gives later stages equal or smaller steps (1e-5, then 3e-6).

    Attributes:
        method: what is layered.
        folds: k. Facts with a `fold` are put together or kept apart by it; others are split at random with the
            run's seed, in sizes that differ by at most one.
        order: the order in which the k folds are forgotten, e.g. (2, 1); None: as they come.
        decay: δ, how little an old fold is forgotten again (published: 0.1).
        forget, retain, base: α, ρ, R; one number, or one for each stage.
        stage_stop: a stage ends when recall on its newest fold is at or below this (0..1, or "chance"); None: never.
        repeat: how often each stage is run. With folds=1 this is the control of equal compute: the plain method,
            started again as often.
    """

    method: Method
    folds: int = 4
    order: tuple[int, ...] | None = None
    decay: float = 0.1
    forget: float | tuple[float, ...] = 1.0
    retain: float | tuple[float, ...] = 1.0
    base: float | tuple[float, ...] = 1.0
    stage_stop: float | str | None = None
    repeat: int = 1

    paper: ClassVar[str] = "2505.09500"

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise UserError(f"Layered takes a method with its settings, such as NPO(), not {self.method!r:.60}")
        check_fields(self)
        check_whole("folds", self.folds, 1, MOST)
        check_whole("repeat", self.repeat, 1, MOST)
        if self.order is not None and sorted(self.order) != list(range(1, self.folds + 1)):
            raise UserError(f"order must name the folds 1 to {self.folds} once each, not {self.order}")
        for name in ("forget", "retain", "base"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.folds:
                raise UserError(f"{name} has {len(value)} weights for {self.folds} stages; give one, or one a stage")
            if not all(0 <= _at(value, stage) < math.inf for stage in range(1, self.folds + 1)):
                raise UserError(f"{name} must be a number from 0 on for each stage, not {value}")
        if not 0 <= self.decay <= 1:
            raise UserError(f"decay must be between 0 and 1, not {self.decay}")
        check_recall("stage_stop", self.stage_stop)

    @property
    def name(self) -> str:
        return f"layered_{self.method.name}"

    def layers(self, forget: Facts, retain: Facts, seed: int) -> Iterator[Layer]:
        """The stages in their order. Facts of the forget set carry the number of their layer (from 1) as `fold`.

        Raises:
            UserError: fewer facts than folds, folds that do not make as many stages, two templates.
        """
        if self.folds > 1 and forget.template != retain.template:
            raise UserError(
                "facts to forget and to retain have different templates, and a layered run retains some of both; "
                "give them one template"
            )
        parts = split(forget, self.folds, seed) if self.folds > 1 else [list(forget)]
        order = self.order or range(1, self.folds + 1)
        folds = [
            [replace(fact, fold=number, role="forget") for fact in parts[place - 1]]
            for number, place in enumerate(order, start=1)
        ]
        for stage in range(1, self.folds + 1):
            gone = [fact for part in folds[:stage] for fact in part]
            # The two sets may have numbered their facts alike.
            waiting = [replace(fact, id=f"fold {fact.fold}: {fact.id}") for part in folds[stage:] for fact in part]
            layer = Layer(
                stage,
                Facts(gone, name=forget.name, format=forget.format, template=forget.template),
                Facts([*retain, *waiting], name=retain.name, format=retain.format, template=retain.template),
                {fold: _at(self.forget, stage) * self.decay ** (stage - fold) for fold in range(1, stage + 1)},
                self._retain_weights(stage, len({fact.role for fact in retain})),
            )
            yield from [layer] * self.repeat

    def _retain_weights(self, stage: int, roles: int) -> dict[int | None, float]:
        """A batch takes as many rows from each role of the retain set as from each waiting fold; this undoes it."""
        waiting = range(stage + 1, self.folds + 1)
        groups = roles + len(waiting)
        base = _at(self.base, stage) * groups / roles
        return {None: base} | {fold: _at(self.retain, stage) * groups / len(waiting) for fold in waiting}


def split(facts: Facts, count: int, seed: int) -> list[list[Fact]]:
    """`count` parts: whole folds where the facts have them and they suffice, else at random with `seed`.

    Raises:
        UserError: fewer facts than parts; facts of which only some have a fold.
    """
    if len(facts) < count:
        raise UserError(f"{len(facts)} facts cannot be split into {count} folds")
    known = sorted({fact.fold for fact in facts if fact.fold is not None})
    if known and any(fact.fold is None for fact in facts):
        raise UserError("some facts to forget have a fold and some have none: give all of them one, or none")
    if len(known) >= count:
        parts: list[list[Fact]] = [[] for _ in range(count)]
        for place, fold in enumerate(known):
            parts[place * count // len(known)] += [fact for fact in facts if fact.fold == fold]
        return parts
    if known:
        raise UserError(
            f"the facts to forget have {len(known)} folds, which cannot make {count}; give folds={len(known)}"
        )
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[facts[place] for place in order[part::count]] for part in range(count)]


def _at(weights: float | Sequence[float], stage: int) -> float:
    return weights[stage - 1] if isinstance(weights, Sequence) else weights
