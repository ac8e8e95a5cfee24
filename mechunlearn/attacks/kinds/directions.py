"""Directions in the residual stream: take away the one that unlearning added, or add back what it took away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ...facts import Facts
from ...models.hooks import Hook, hooked
from ..base import Attack, Attempt, Given, before_of
from .mean_shift import hook_name, shifts


@dataclass(frozen=True, kw_only=True)
class AblateDirection(Attack):
    """h ← h − (h·d̂)d̂ at every position, with d the difference of means, after − before, of the residual stream.

    d is taken behind one block, at the last token of the prompts of all folds but the one that is asked for (halves
    where there are no folds), so that nothing of the asked facts is in it. It is ablated behind that block and every
    later one, which could write it again. A layer that unlearning left as it was has no direction, and is asked as it
    is (idea: arXiv 2409.18025).

    Attributes:
        layers: the blocks that d is taken behind, each a setting; None for all.
        onwards: False ablates d behind that block alone.
        vector: this direction instead, such as RMU's control vector; the model before is then not needed.
    """

    layers: tuple[int, ...] | None = None
    onwards: bool = True
    vector: tuple[float, ...] | None = None

    name: ClassVar[str] = "ablate"
    source: ClassVar[str] = "2409.18025"
    needs_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vector is not None and not any(self.vector):
            raise UserError("ablate: the vector is zero, which is no direction")

    @property
    def uses_before(self) -> bool:
        return self.vector is None

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        count = model.cfg.n_layers
        chosen = _layers(self.name, self.layers, count)
        for part, facts, found in self._directions(model, given):
            questions, which = given.questions(facts), "" if self.vector is None else ", given vector"
            for layer in chosen:
                unit = found[layer] / found[layer].norm().clamp_min(torch.finfo(found.dtype).tiny)
                places = range(layer, count) if self.onwards else [layer]
                with hooked(model, [(hook_name(place), _remove(unit)) for place in places]):
                    yield Attempt(model, questions, f"layer {layer}{which}", part)

    def _directions(
        self, model: TransformerBridge, given: Given
    ) -> Iterator[tuple[str, Facts, Float[Tensor, "layer d_model"]]]:
        if self.vector is None:
            yield from shifts(model, before_of(self, given), given.forget)
            return
        if len(self.vector) != model.cfg.d_model:
            raise UserError(
                f"ablate: the vector has {len(self.vector)} entries, the model's width is {model.cfg.d_model}"
            )
        vector = torch.tensor(self.vector, dtype=torch.float64)
        yield "", given.forget, vector.expand(model.cfg.n_layers, -1)


@dataclass(frozen=True, kw_only=True)
class Steer(Attack):
    """h ← h + strength·(mean of before − mean of after) behind one block, at every position.

    Means as in `AblateDirection`: at the last token of the prompts of the other folds. They are `before`'s, so
    something may be handed back; the never-knew twin gets the same help.

    Attributes:
        layers: the blocks to steer behind; None for all.
        strengths: each with each layer is a setting.
    """

    layers: tuple[int, ...] | None = None
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)

    name: ClassVar[str] = "steer"
    source: ClassVar[str] = "2308.10248"
    needs_before: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strengths:
            raise UserError("steer: give one strength or more")

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt]:
        chosen = _layers(self.name, self.layers, model.cfg.n_layers)
        for part, facts, shift in shifts(model, before_of(self, given), given.forget):
            questions = given.questions(facts)
            for layer in chosen:
                for strength in self.strengths:
                    with hooked(model, [(hook_name(layer), _add(-strength * shift[layer]))]):
                        yield Attempt(model, questions, f"layer {layer}, strength {strength:g}", part)


def _remove(unit: Float[Tensor, " d"]) -> Hook:
    def remove(tensor: Tensor, *, hook: HookPoint) -> Tensor:  # noqa: ARG001 - TransformerLens passes it by name
        along = unit.to(tensor)
        return tensor - (tensor @ along)[..., None] * along

    return remove


def _add(vector: Float[Tensor, " d"]) -> Hook:
    def add(tensor: Tensor, *, hook: HookPoint) -> Tensor:  # noqa: ARG001 - TransformerLens passes it by name
        return tensor + vector.to(tensor)

    return add


def _layers(name: str, layers: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    chosen = tuple(range(count)) if layers is None else layers
    if not chosen or min(chosen) < 0 or max(chosen) >= count:
        raise UserError(f"{name}: layers {chosen} do not fit; the model has 0 to {count - 1}")
    return chosen
