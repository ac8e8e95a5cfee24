"""One training loop for everything that is trained here: the organism, unlearning, relearning.

The loop knows nothing of what is learned: it draws batches, asks a function for the loss, and steps. Gradient
accumulation and the moving of batches come from accelerate, the learning-rate schedules from transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_scheduler

from .errors import UserError

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class Settings:
    """How to train. One step is one update of the weights and draws `accumulation` batches.

    `learning_rate` is reached after `warmup` steps (it starts at 0) and then follows `schedule`, which ends
    at `steps`. `weight_decay` acts on matrices only, not on norms and biases. `clip` bounds the norm of the
    whole gradient; None leaves it. `precision` "bf16" computes the loss under autocast; the weights that
    are trained stay in fp32 either way.
    """

    steps: int
    learning_rate: float
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    clip: float | None = 1.0
    accumulation: int = 1
    seed: int = 0
    precision: str = "no"

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        for name, least in (("steps", 1), ("accumulation", 1), ("warmup", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate must be a positive number, not {self.learning_rate}")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"clip must be positive, or None for no clipping, not {self.clip}")


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
    with _borrowed(model), _seeded(settings.seed, _device(model)):
        parameters = _choose(model, trainable)
        optimizer = _optimizer(parameters, settings)
        schedule = get_scheduler(SCHEDULES[settings.schedule], optimizer, settings.warmup, settings.steps)
        # The model stays on the device it was loaded to, which need not be the one accelerate would choose.
        accelerator = Accelerator(
            gradient_accumulation_steps=settings.accumulation, device_placement=False, mixed_precision="no"
        )
        stepper = accelerator.prepare_optimizer(optimizer)
        start, rows = time.perf_counter(), []
        model.train()
        with tqdm(total=settings.steps, desc=progress, disable=progress is None) as bar:
            for step in range(1, settings.steps + 1):
                row: dict[str, float] = {}
                for _ in range(settings.accumulation):
                    with accelerator.accumulate(model):
                        batch = send_to_device(_next(batches, step, settings), _device(model))
                        parts = _evaluate(loss, batch, _device(model), settings)
                        _record(row, parts, step, settings)
                        accelerator.backward(parts["loss"])
                        if accelerator.sync_gradients:
                            row["gradient_norm"] = _clip(parameters, step, settings)
                        stepper.step()
                        stepper.zero_grad()
                row["learning_rate"] = float(schedule.get_last_lr()[0])
                schedule.step()
                rows.append({"step": step, **row, "seconds": time.perf_counter() - start})
                bar.update()
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                if watch is not None and watch_every and step % watch_every == 0 and _stops(model, watch, step):
                    break
    frame = pd.DataFrame(rows)
    last = ["learning_rate", "gradient_norm", "seconds"]
    return frame[[name for name in frame if name not in last] + last]


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[settings.optimizer](groups, lr=settings.learning_rate)


def _evaluate(
    loss: Callable[[Any], dict[str, Tensor]], batch: Any, device: torch.device, settings: Settings
) -> dict[str, Tensor]:
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        return loss(batch)


def _choose(model: nn.Module, trainable: Callable[[str], bool] | None) -> list[nn.Parameter]:
    """The parameters to train; the others' `requires_grad` is switched off: no cost, no move."""
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad if trainable is None else trainable(name))
        parameter.grad = None
        if parameter.requires_grad:
            if parameter.dtype in (torch.bfloat16, torch.float16):
                raise UserError(
                    f"cannot train '{name}' in {parameter.dtype}: small updates would be rounded away. "
                    "Load the model with dtype='float32' (precision='bf16' makes the computation cheaper)"
                )
            chosen.append(parameter)
    if not chosen:
        raise UserError("nothing to train: no parameter of the model was chosen by `trainable`, or all are frozen")
    return chosen


def _next(batches: Iterator[Any], step: int, settings: Settings) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise UserError(
            f"the batches ran out at step {step} of {settings.steps}: give an iterator that repeats"
        ) from None


def _record(row: dict[str, float], parts: dict[str, Tensor], step: int, settings: Settings) -> None:
    for name, value in parts.items():
        number = float(value.detach())
        if not math.isfinite(number):
            known = ", ".join(f"{key} {float(part.detach()):.4g}" for key, part in parts.items())
            raise UserError(
                f"the loss is not finite at step {step} of {settings.steps} ({known}): "
                f"lower the learning rate ({settings.learning_rate:g}) or check the model's weights"
            )
        row[name] = row.get(name, 0.0) + number / settings.accumulation


def _clip(parameters: list[nn.Parameter], step: int, settings: Settings) -> float:
    norm = float(nn.utils.clip_grad_norm_(parameters, math.inf if settings.clip is None else settings.clip))
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient is not finite at step {step} of {settings.steps}: "
            f"lower the learning rate ({settings.learning_rate:g})"
        )
    return norm


def _stops(model: nn.Module, watch: Callable[[int], bool], step: int) -> bool:
    model.eval()
    with torch.no_grad():
        stop = watch(step)
    model.train()
    return stop


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _borrowed(model: nn.Module) -> Iterator[None]:
    """Give the model back with the flags and gradients it came with."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad, gradient in states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and sampling inside follow `seed`; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
