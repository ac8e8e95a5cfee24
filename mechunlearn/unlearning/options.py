"""How a run trains, whatever the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from ..checking import check_fields
from ..errors import UserError, check_whole
from ..facts import check_prompts
from ..sites import resolve
from ..training import Settings, check_precise
from .loop.budget import Budget, check_recall
from .method import Method

LEARNING_RATE = 4e-4


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `unlearn`, whose arguments these are.

    Raises:
        UserError: values that make no sense.
    """

    steps: int = 100
    learning_rate: float | None = None
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    batch_size: int = 32
    accumulation: int = 1
    precision: str = "no"
    checkpointing: bool = False
    trainable: tuple[str, ...] | None = None
    budget: Budget | None = None
    stop: float | str | None = None
    patience: int | None = None
    evaluate_every: int = 25
    prompts: str = "held_out"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("batch_size", self.batch_size, 1)
        if self.batch_size < self.accumulation:
            raise UserError(
                f"batch_size={self.batch_size} rows cannot be split into accumulation={self.accumulation} parts"
            )
        check_whole("evaluate_every", self.evaluate_every, 1)
        if self.patience is not None:
            check_whole("patience", self.patience, 1)
        check_whole("seed", self.seed, 0)
        check_prompts(self.prompts)
        check_recall("stop", self.stop)
        self.settings()

    def settings(self) -> Settings:
        """The same for the training loop."""
        return Settings(
            self.steps,
            LEARNING_RATE if self.learning_rate is None else self.learning_rate,
            self.optimizer,
            self.weight_decay,
            self.warmup,
            self.schedule,
            self.clip,
            accumulation=self.accumulation,
            seed=self.seed,
            precision=self.precision,
        )

    def check(self, method: Method, model: TransformerBridge) -> None:
        """Whether these options suit the method and the model.

        Raises:
            UserError: a learning rate for a method that sets its own step size, `trainable` for a method that trains
                adapters, nothing to train, weights that are too coarse to be trained.
        """
        if method.sets_step_size and self.learning_rate is not None:
            raise UserError(
                f"{method.name} sets the length of its steps itself; change its own settings instead of learning_rate"
            )
        check_precise(method.name, self.parameters(method, model))
        method.check(model)
        if self.trainable is not None and method.trains_adapters:
            raise UserError(
                f"{method.name} trains adapters, so trainable={self.trainable} would do nothing; leave it out, "
                "or switch the adapters off (lora_rank=None)"
            )

    def parameters(self, method: Method, model: TransformerBridge) -> list[nn.Parameter]:
        """What is trained: the sites that were asked for, or the method's own.

        Raises:
            UserError: a site that is no parameter site, or that this model lacks.
        """
        names: Sequence[str] = self.trainable if self.trainable is not None else method.trained(model)
        found: dict[int, nn.Parameter] = {}
        for name in names:
            site = resolve(name, model)
            if site.kind != "parameters" or site.select:
                raise UserError(
                    f"trainable={name!r}: only whole parameters can be trained; name a parameter site (value_vectors, "
                    "mlp_keys, attention, embedding, …) or a regular expression over parameter names"
                )
            found |= {id(slot.tensor): slot.tensor for slot in site.slots}
        if not found:
            raise UserError("nothing to train: `trainable` is empty")
        return list(found.values())
