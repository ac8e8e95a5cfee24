"""One way to train everything that is trained here: the organism, unlearning, relearning.

A `Trainer` knows nothing of what is learned: it is given the pieces of a step's batch, asks functions for the loss, and
steps. The learning-rate schedules come from transformers. All it knows can be written down and put back, so that a run
goes on bit for bit where it was interrupted. `train` is the plain loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_scheduler

from .checking import check_fields, check_number
from .errors import NotFiniteError, UserError, check_whole
from .undoing import undone

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
PRECISIONS = ("no", "bf16")
MOST_STEPS = 10**9


@dataclass(frozen=True)
class Settings:
    """How to train. One step is one update of the weights and draws `accumulation` batches.

    `learning_rate` is reached after `warmup` steps (it starts at 0) and then follows `schedule`, which ends
    at `steps`. `weight_decay` acts on matrices only, not on norms and biases. `clip` bounds the norm of the
    whole gradient; None leaves it; `normalise` scales it to norm 1 instead, so that the step of plain SGD is as long as
    the learning rate. `precision` "bf16" computes the loss under autocast; the weights that
    are trained stay in fp32 either way.
    """

    steps: int
    learning_rate: float
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    clip: float | None = 1.0
    normalise: bool = False
    accumulation: int = 1
    seed: int = 0
    precision: str = "no"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        for name, least in (("steps", 1), ("accumulation", 1), ("warmup", 0)):
            check_whole(name, getattr(self, name), least, MOST_STEPS)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("learning_rate", self.learning_rate, above=0, most=1e38)
        if self.clip is not None:
            check_number("clip (None for no clipping)", self.clip, above=0)


@dataclass(frozen=True)
class Phase:
    """One update of the weights within a step: a loss with an optimiser of its own.

    `loss(piece)` returns scalar parts, of which "loss" is minimised and the others are only recorded, under `name`
    and their own. `before_step` may change the gradients when all pieces are through.
    """

    loss: Callable[[Any], dict[str, Tensor]]
    settings: Settings
    name: str = ""
    before_step: Callable[[], None] | None = None


class Trainer:
    """Changes a model step by step, in place, on the device where it is.

    Attributes:
        step: how many steps are done.
        scale: what every learning rate is multiplied by.

    Raises:
        UserError: nothing to train, weights below fp32.
    """

    def __init__(
        self, model: nn.Module, phases: Sequence[Phase], seed: int = 0, parameters: Iterable[nn.Parameter] | None = None
    ) -> None:
        self.model, self.phases, self.seed = model, tuple(phases), seed
        self.parameters = _trainable(model, parameters)
        self.step, self.scale = 0, 1.0
        self._optimizers = [_optimizer(list(self.parameters.values()), phase.settings) for phase in self.phases]
        self._factors = [_factor(*pair) for pair in zip(self._optimizers, self.phases, strict=True)]

    def advance(self, pieces: Sequence[Any]) -> dict[str, float]:
        """One step on the pieces of one batch, whose losses are averaged; returns what was measured.

        Randomness in the model (dropout) follows the seed and the number of the step alone.

        Whatever is raised, the weights are as before the phase that raised it; those before it have made their update.

        Raises:
            NotFiniteError: the loss or the gradient is not finite.
        """
        row: dict[str, float] = {}
        with _seeded(self.seed * 1_000_003 + self.step, _device(self.model)):
            for place in range(len(self.phases)):
                try:
                    row |= self._update(place, pieces)
                finally:
                    for parameter in self.parameters.values():
                        parameter.grad = None
        self.step += 1
        return row

    def _update(self, place: int, pieces: Sequence[Any]) -> dict[str, float]:
        phase, optimizer = self.phases[place], self._optimizers[place]
        rate = phase.settings.learning_rate * self._factors[place](self.step) * self.scale
        row: dict[str, float] = {}
        for piece in pieces:
            parts = _evaluate(phase.loss, _moved(piece, _device(self.model)), self.model, phase.settings)
            _record(row, parts, self.step + 1, phase, len(pieces))
            (parts["loss"] / len(pieces)).backward()
        if phase.before_step is not None:
            phase.before_step()
        row[f"{phase.name}gradient_norm"] = _bound(self.parameters.values(), self.step + 1, phase.settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        row[f"{phase.name}learning_rate"] = rate
        return row

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on beside the batch: a copy in main memory, by name."""
        found = {f"parameter.{name}": _copied(tensor) for name, tensor in self.parameters.items()}
        found["trainer"] = torch.tensor([self.step, self.scale], dtype=torch.float64)
        for place, optimizer in enumerate(self._optimizers):
            for number, values in optimizer.state_dict()["state"].items():
                for key, value in values.items():
                    if isinstance(value, Tensor):
                        found[f"optimizer.{place}.{number}.{key}"] = _copied(value)
        return found

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state[f"parameter.{name}"])
        step, self.scale = state["trainer"].tolist()
        self.step = int(step)
        for place, optimizer in enumerate(self._optimizers):
            held: dict[int, dict[str, Tensor]] = {}
            for name, value in state.items():
                if name.startswith(f"optimizer.{place}."):
                    _, _, number, key = name.split(".", 3)
                    held.setdefault(int(number), {})[key] = value.clone()
            optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})


def train(
    model: nn.Module,
    batches: Iterator[Any],
    loss: Callable[[Any], dict[str, Tensor]],
    settings: Settings,
    *,
    trainable: Callable[[str], bool] | None = None,
    watch: Callable[[int], bool] | None = None,
    watch_every: int = 0,
    progress: str | None = None,
) -> pd.DataFrame:
    """Train `model` in place, on the device where it is, and return one row per step.

    `loss(batch)` returns scalar parts, of which "loss" is minimised and the others are only recorded (each
    the mean over the step's batches, which are moved to the model's device first). `trainable(name)`
    chooses among `model.named_parameters()`; None keeps the model's own choice. Every `watch_every` steps,
    counted from 1, `watch(step)` is called with the model in evaluation mode and without gradients; where
    it returns True training stops. `progress` names the progress bar; None hides it.

    Columns: `step` (from 1), one per part, `learning_rate`, `gradient_norm` (before clipping), `seconds`
    since the start. However this ends, training flags, `requires_grad` and gradients of the model and the
    global random state are as before.

    Raises UserError: nothing to train, weights below fp32, no more batches, a loss or gradient that is not
    finite (names the step).
    """
    with borrowed(model):
        chosen = None if trainable is None else [p for name, p in model.named_parameters() if trainable(name)]
        trainer = Trainer(model, [Phase(loss, settings)], settings.seed, chosen)
        start, rows = time.perf_counter(), []
        model.train()
        with tqdm(total=settings.steps, desc=progress, disable=progress is None) as bar:
            for step in range(1, settings.steps + 1):
                row = trainer.advance([_next(batches, step, settings) for _ in range(settings.accumulation)])
                rows.append({"step": step, **row, "seconds": time.perf_counter() - start})
                bar.update()
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                if watch is not None and watch_every and step % watch_every == 0 and _stops(model, watch, step):
                    break
    frame = pd.DataFrame(rows)
    last = ["learning_rate", "gradient_norm", "seconds"]
    return frame[[name for name in frame if name not in last] + last]


def _copied(tensor: Tensor) -> Tensor:
    """One by one into main memory: an accelerator has no room for weights and moments twice."""
    return tensor.detach().to("cpu", copy=True)


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[settings.optimizer](groups, lr=settings.learning_rate)


def _factor(optimizer: torch.optim.Optimizer, phase: Phase) -> Callable[[int], float]:
    """What the learning rate is multiplied by at a step (from 0)."""
    settings = phase.settings
    schedule = get_scheduler(SCHEDULES[settings.schedule], optimizer, settings.warmup, settings.steps)
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    return schedule.lr_lambdas[0]


def _evaluate(
    loss: Callable[[Any], dict[str, Tensor]], piece: Any, model: nn.Module, settings: Settings
) -> dict[str, Tensor]:
    with torch.autocast(_device(model).type, torch.bfloat16, enabled=settings.precision == "bf16"):
        return loss(piece)


def _moved(piece: Any, device: torch.device) -> Any:
    """A piece on that device: anything that has `to`, or a dict, a list or a tuple of such."""
    if isinstance(piece, dict):
        return {name: _moved(part, device) for name, part in piece.items()}
    if isinstance(piece, list | tuple):
        return type(piece)(_moved(part, device) for part in piece)
    return piece.to(device) if hasattr(piece, "to") else piece


def _trainable(model: nn.Module, chosen: Iterable[nn.Parameter] | None) -> dict[str, nn.Parameter]:
    """The parameters to train by name; the others' `requires_grad` is switched off: no cost, no move."""
    wanted = None if chosen is None else {id(parameter) for parameter in chosen}
    found = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad if wanted is None else id(parameter) in wanted)
        parameter.grad = None
        if parameter.requires_grad:
            check_precise(name, [parameter])
            found[name] = parameter
    if not found:
        raise UserError("nothing to train: no parameter of the model was chosen, or all are frozen")
    return found


def check_precise(name: str, parameters: Iterable[nn.Parameter]) -> None:
    """Raises UserError: weights below float32, which a step would not move."""
    for parameter in parameters:
        if parameter.dtype in (torch.bfloat16, torch.float16):
            raise UserError(
                f"cannot train '{name}' in {parameter.dtype}: small updates would be rounded away. "
                "Load the model with dtype='float32' (precision='bf16' makes the computation cheaper)"
            )


def _next(batches: Iterator[Any], step: int, settings: Settings) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise UserError(
            f"the batches ran out at step {step} of {settings.steps}: give an iterator that repeats"
        ) from None


def _record(row: dict[str, float], parts: dict[str, Tensor], step: int, phase: Phase, pieces: int) -> None:
    for name, value in parts.items():
        number = float(value.detach())
        if not math.isfinite(number):
            known = ", ".join(f"{key} {float(part.detach()):.4g}" for key, part in parts.items())
            raise NotFiniteError(
                f"the loss is not finite at step {step} of {phase.settings.steps} ({known}): "
                f"lower the learning rate ({phase.settings.learning_rate:g}) or check the model's weights"
            )
        row[phase.name + name] = row.get(phase.name + name, 0.0) + number / pieces


def _bound(parameters: Iterable[nn.Parameter], step: int, settings: Settings) -> float:
    """Clip or normalise the gradient; its norm as it was."""
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in held if p.grad is not None])
    if not math.isfinite(float(norm)):
        raise NotFiniteError(
            f"the gradient is not finite at step {step} of {settings.steps}: "
            f"lower the learning rate ({settings.learning_rate:g})"
        )
    if settings.normalise:
        # A zero gradient stays zero: there is nowhere to go.
        scale = 0.0 if norm == 0 else 1 / norm
        for parameter in held:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
    elif settings.clip is not None:
        nn.utils.clip_grads_with_norm_(held, settings.clip, norm)
    return float(norm)


def _stops(model: nn.Module, watch: Callable[[int], bool], step: int) -> bool:
    model.eval()
    with torch.no_grad():
        stop = watch(step)
    model.train()
    return stop


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Give the model back with the flags and gradients it came with."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]

    def back() -> None:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad, gradient in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient

    with undone(back):
        yield


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and sampling inside follow `seed`; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
