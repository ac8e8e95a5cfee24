"""What every method has: a name, a paper, weights, a loss, and how a step is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from ..checking import check_fields, check_number
from ..errors import UserError
from ..training import Phase, Settings
from .data.batches import Piece
from .data.rows import Rows
from .retain import RETAIN
from .step import Step


@dataclass(frozen=True)
class Routine:
    """How one run of a method trains: the phases of a step, and what it remembers from step to step."""

    phases: tuple[Phase, ...]
    after_step: Callable[[int], None] = lambda step: None  # noqa: ARG005
    state: Callable[[], dict[str, Tensor]] = dict
    restore: Callable[[dict[str, Tensor]], None] = lambda state: None  # noqa: ARG005


@dataclass(frozen=True, kw_only=True)
class Method:
    """L = γ·forget + α·(retain facts + τ·general text); a subclass gives the forget term and its defaults.

    Attributes:
        forget_weight, retain_weight, text_weight: γ, α, τ. With α = 0 nothing is retained, and nothing is computed.
        retain: the retain term, "cross_entropy", "kl" (to the start model), "representation" or "drift" (see
            retain.py); "own" for methods that came with one.
    """

    forget_weight: float = 1.0  # γ
    retain_weight: float = 1.0  # α
    text_weight: float = 1.0  # τ
    retain: str = "cross_entropy"

    name: ClassVar[str]
    paper: ClassVar[str]
    alternative: ClassVar[str | None] = None  # "distractor" or "refusal": another answer to each forget prompt
    uses_start_nll: ClassVar[bool] = False  # the start model's −log p of the forget answers
    sets_step_size: ClassVar[bool] = False  # whether the step size is the method's, not the optimiser's
    rolls_back: ClassVar[bool] = True  # whether a crossed budget sends the run back
    trains_adapters: ClassVar[bool] = False  # whether `adapted` puts some on the model
    has_own_retain: ClassVar[bool] = False  # whether it came with a retain term of its own (`hold` gives it)
    above_zero: ClassVar[tuple[str, ...]] = ()  # settings that must be more than nothing
    stronger: ClassVar[str] = "learning_rate, steps or forget_weight"  # what to raise where it did nothing

    def __post_init__(self) -> None:
        check_fields(self)
        known = ["own", *RETAIN] if self.has_own_retain else [*RETAIN]
        if self.retain not in known:
            raise UserError(f"{self.name}: retain={self.retain!r} is not one of {', '.join(known)}")
        for name in ("forget_weight", "retain_weight", "text_weight"):
            check_number(f"{self.name}: {name}", getattr(self, name), least=0)
        for name in self.above_zero:
            check_number(f"{self.name}: {name}", getattr(self, name), above=0)

    def check(self, model: TransformerBridge) -> None:
        """Raises UserError: this model cannot have these settings. Of methods that are settings of this one, too."""
        for part in fields(self):
            if isinstance(value := getattr(self, part.name), Method):
                value.check(model)

    def fitted(self, start: TransformerBridge, forget: Rows, size: int) -> Method:
        """This method with what it measures of the model before filled in: here, in the methods that are its settings.

        A run calls it once, before the first stage. `forget` are all forget rows, `size` how many to look at together.
        """
        inner = {part.name: getattr(self, part.name) for part in fields(self)}
        found = {name: value.fitted(start, forget, size) for name, value in inner.items() if isinstance(value, Method)}
        return replace(self, **found) if found else self

    def forget(self, step: Step) -> Float[Tensor, ""]:
        """The term that is minimised to forget."""
        raise NotImplementedError

    def retention(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """The terms that hold the rest in place, on retain facts and on general text, before weighing."""
        kinds = [kind for kind in ("retain", "text") if step.has(kind) and self.retain_weight]
        return {kind: self.hold(step, kind) for kind in kinds}

    def hold(self, step: Step, kind: str) -> Float[Tensor, ""]:
        """The term that holds rows of this kind in place."""
        return RETAIN[self.retain](step, kind)

    def weights(self, progress: float) -> tuple[float, float]:  # noqa: ARG002 - for methods that change with time
        """γ and α at this share of the run."""
        return self.forget_weight, self.retain_weight

    def loss(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """The weighted loss, beside its parts before weighing."""
        forget, kept = self.forget(step), self.retention(step)
        down, up = self.weights(step.progress)
        total = down * forget
        for kind, value in kept.items():
            total = total + up * (self.text_weight if kind == "text" else 1.0) * value
        return {"loss": total, "forget": forget, **kept}

    def trained(self, model: TransformerBridge) -> tuple[str, ...]:  # noqa: ARG002 - some depend on the depth
        """Sites, or regular expressions over parameter names, that are trained where the user names none."""
        return ("everything",)

    @contextmanager
    def adapted(self, model: TransformerBridge, seed: int) -> Iterator[list[nn.Parameter] | None]:  # noqa: ARG002
        """Adapters that are on the model while it is trained, and are trained in place of it; None without any."""
        yield None

    @contextmanager
    def routine(
        self,
        model: TransformerBridge,
        start: TransformerBridge,
        parameters: list[nn.Parameter],  # noqa: ARG002 - some change the modules of these
        settings: Settings,
        epoch: int,  # noqa: ARG002 - some change from epoch to epoch
    ) -> Iterator[Routine]:
        """How a step is made while the block lasts: here one loss, one optimiser.

        `epoch` is the number of steps that shows every forget row.
        """

        def loss(piece: Piece) -> dict[str, Tensor]:
            return self.loss(Step(model, start, piece, settings.seed))

        yield Routine((Phase(loss, settings),))
