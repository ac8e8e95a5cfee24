"""CIR: take the directions that all forget data share out of every weight's update, then step by a fixed length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ...models import slots
from ...training import Phase, Settings
from ..collapse.collapser import TokenCollapser, WeightCollapser
from ..collapse.subspace import COLLAPSES
from ..collapse.taps import Taps, tapped
from ..data.batches import Piece
from ..method import Method, Routine
from ..step import Seen, Step
from .breaking import Breaking


@dataclass(frozen=True, kw_only=True)
class CIR(Method):
    """ΔW = Σ_t g̃_t ã_tᵀ, with inputs a and output gradients g of each weight freed of their mean and top principal
    directions; W ← W − η·ΔW/‖ΔW‖, the norm over all trained weights; then W ← W − r·∇retain.

    Sondej & Yang, "Collapse of Irrelevant Representations" (arXiv 2509.11816), with options of its successor RepSelect
    (arXiv 2606.17168). Directions are those of the epoch before, found on vectors that were not collapsed; the first
    epoch only collects. BOS and padding do not count.

    `faithful=True` follows the published code in projecting out the mean before the components, which are not
    orthogonal to it, and in ending where the budget is found crossed. The default removes both by one orthonormal
    basis and goes back to the budget. (The published code also trained in bf16 and left the last column of every batch
    out of the update but not of the loss; that is not imitated.)

    Attributes:
        objective: the method whose forget term is minimised: `Breaking()` (the paper's MLP breaking),
            `CircuitBreakers()`, `GradientAscent()` (the answers' −log p, climbed), `NPO()`, `RMU()`, ….
        activations, gradients: how many directions are collapsed on either side: a number that counts the mean, or,
            below 1, a share of the width. 0 collapses nothing, 1 the mean alone.
        collapse: "hard" removes directions; "soft" and "quadratic" shrink each to s_min/s and (s_min/s)² of itself,
            s its singular value about the origin, where the mean is no direction of its own.
        statistics: whether directions are those of "forget" or of "retain" data.
        form: "tokens" as above; "weights": the singular directions of the weights' gradient, summed over an epoch,
            are taken out of the gradient itself.
        step_norm: η, the length of a step over all trained weights; a run on which it was lost says so at its end.
        retain_rate: r; with the retain term "drift" it is the paper's.
    """

    objective: Method = field(default_factory=Breaking)
    activations: int | float = 24
    gradients: int | float = 36
    collapse: str = "hard"
    statistics: str = "forget"
    form: str = "tokens"
    step_norm: float = 0.2
    retain_rate: float = 3e-4
    retain: str = "drift"
    faithful: bool = False

    name: ClassVar[str] = "cir"
    paper: ClassVar[str] = "2509.11816"
    sets_step_size: ClassVar[bool] = True
    stronger: ClassVar[str] = "step_norm (a length, which grows with the number of weights) or steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (
            ("collapse", COLLAPSES),
            ("statistics", ("forget", "retain")),
            ("form", ("tokens", "weights")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"cir: {name}={getattr(self, name)!r} is not one of {', '.join(known)}")
        if min(self.activations, self.gradients) < 0 or self.step_norm <= 0 or self.retain_rate < 0:
            raise UserError("cir: activations, gradients and retain_rate must be at least 0, step_norm above 0")
        if self.statistics == "retain" and self.form == "weights":
            raise UserError("cir: form='weights' takes its directions from forget data; leave statistics='forget'")
        if self.objective.sets_step_size:
            raise UserError("cir: the objective must be a method with a loss, not CIR itself")

    @property
    def uses_start_nll(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.objective.uses_start_nll

    @property
    def alternative(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.objective.alternative

    @property
    def refusals(self) -> tuple[str, ...] | None:
        """What stands for a refusal, where the objective prefers one."""
        return getattr(self.objective, "refusals", None)

    @property
    def rolls_back(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.faithful

    def trained(self, model: TransformerBridge) -> tuple[str, ...]:
        """Gate, up and down projection of every block.

        Raises:
            UserError: an MLP is a mixture of experts, each of which sees some of the tokens only.
        """
        mixed = sorted({slot.layer for slot in slots(model) if "expert_value_vectors" in slot.roles})
        if mixed:
            raise UserError(
                f"{self.name}: the MLPs of blocks {mixed} are mixtures of experts, whose gradients are no sums over "
                "all tokens; name linear maps to train instead (trainable=['attention'], say)"
            )
        return (r"^blocks\.\d+\.mlp\.(gate|in|out)\.weight$",)

    def forget(self, step: Step) -> Float[Tensor, ""]:
        return self.objective.forget(step)

    @contextmanager
    def routine(
        self,
        model: TransformerBridge,
        start: TransformerBridge,
        parameters: list[nn.Parameter],
        settings: Settings,
        epoch: int,
    ) -> Iterator[Routine]:
        """Two phases a step: forget with collapsed gradients and a fixed length, then retain by plain descent."""
        with tapped(model, parameters) as taps:
            make = TokenCollapser if self.form == "tokens" else WeightCollapser
            collapser = make(taps, self, settings.seed)

            def see(piece: Piece, forgetting: bool) -> Step:
                taps.changing, taps.watching = forgetting, forgetting == (self.statistics == "forget")
                taps.active = taps.changing or taps.watching
                return _TappedStep(model, start, piece, settings.seed, taps)

            def forget(piece: Piece) -> dict[str, Tensor]:
                value = self.forget(see(piece, forgetting=True))
                return {"loss": self.forget_weight * value, "forget": value}

            def retain(piece: Piece) -> dict[str, Tensor]:
                kept = self.retention(see(piece, forgetting=False))
                text = self.text_weight * kept["text"] if "text" in kept else 0.0
                return {"loss": self.retain_weight * (kept["retain"] + text), **kept}

            def plain(rate: float, normalise: bool) -> Settings:
                return Settings(
                    settings.steps, rate, "sgd", clip=None, normalise=normalise,
                    accumulation=settings.accumulation, seed=settings.seed, precision=settings.precision,
                )  # fmt: skip

            phases = [Phase(forget, plain(self.step_norm, True), before_step=collapser.before_step)]
            if self.retain_weight and self.retain_rate:
                phases.append(Phase(retain, plain(self.retain_rate, False), name="retain_"))

            def after_step(step: int) -> None:
                if step % epoch == 0:
                    collapser.refit()

            yield Routine(tuple(phases), after_step, collapser.state, collapser.restore)


class _TappedStep(Step):
    """A step that tells the taps which tokens count in each pass."""

    def __init__(self, model: TransformerBridge, start: TransformerBridge, piece: Piece, seed: int, taps: Taps) -> None:
        super().__init__(model, start, piece, seed)
        self._taps = taps

    def see(self, kind: str, states: Sequence[str] = (), logits: bool = True) -> Seen:
        self._taps.valid = self._parts[kind].valid
        try:
            return super().see(kind, states, logits)
        finally:
            self._taps.valid = None
