"""One stretch of unlearning: from a start model, step by step, under one budget, to the state that is kept."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..models import clone, hf
from ..training import NotFiniteError, Trainer, borrowed
from .batches import Drawn, Sources, assemble, draw
from .budget import Referee
from .method import Method, Routine
from .options import Options
from .saves import Save
from .watch import Diary, Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a stage ends with; `frame` as in `UnlearningRun`."""

    model: TransformerBridge
    frame: pd.DataFrame
    stopped: str


@dataclass
class Stage:
    """Everything that one stretch needs.

    Attributes:
        start: the model it begins with; what is retained and what references mean is its. It is not changed.
        baseline: what was measured of the model before the first stage; disruption counts from there.
        goals: recall columns that must come down, with how far.
        folder: where an interrupted stage goes on; None keeps nothing.
    """

    method: Method
    start: TransformerBridge
    sources: Sources
    watch: Watch
    options: Options
    goals: dict[str, float]
    baseline: dict[str, float] | None = None
    folder: Path | None = None
    label: str | None = None

    def run(self) -> Outcome:
        """Train a copy of the start model until there is a reason to end."""
        after = clone(self.start)
        diary = Diary()
        sources = self.sources
        if self.method.uses_start_nll:
            sources = sources.with_start(self.start, self.options.batch)
        with ExitStack() as stack:
            stack.enter_context(borrowed(hf(after)))
            stack.enter_context(_checkpointing(after, self.options))
            parameters = stack.enter_context(self.method.adapted(after, self.options.seed))
            if parameters is None:
                parameters = self.options.parameters(self.method, after)
            settings = self.options.settings()
            epoch = math.ceil(len(sources.forget) / self.options.batch)
            routine = stack.enter_context(self.method.routine(after, self.start, parameters, settings, epoch))
            trainer = Trainer(hf(after), routine.phases, self.options.seed, parameters)
            stopped = _Loop(self, after, routine, sources, diary).go(trainer)
        return Outcome(after, diary.frame(), stopped)


class _Loop:
    """Steps, evaluations, going back, and saving."""

    def __init__(
        self, stage: Stage, after: TransformerBridge, routine: Routine, sources: Sources, diary: Diary
    ) -> None:
        self.stage, self.after, self.routine, self.sources, self.diary = stage, after, routine, sources, diary
        self.options, self.pieces = stage.options, stage.options.accumulation
        self.save = Save(stage.folder)
        self.kept: dict[str, Tensor] = {}  # the last state inside the budget

    def go(self, trainer: Trainer) -> str:
        """Until there is a reason to end, which is returned; the model is then in the state to be kept."""
        found = self.save.read()
        if found is None:
            measured = self.stage.watch.measure(self.after)
            self.referee = self._referee(self.stage.baseline or measured)
            broken = self._check_start(measured)
            ended = self._accept(trainer, measured) or broken
        else:
            ended = self._resume(trainer, *found)
        drawn = itertools.islice(draw(self.sources, self.options.batch, self.options.seed), trainer.step, None)
        with tqdm(
            total=self.options.steps, initial=trainer.step, desc=self.stage.label, disable=self.stage.label is None
        ) as bar:
            while ended is None:
                before = trainer.step
                ended = self._stretch(trainer, drawn, bar)
                if trainer.step < before:  # gone back: the same batches again, with smaller steps
                    fresh = draw(self.sources, self.options.batch, self.options.seed)
                    drawn = itertools.islice(fresh, trainer.step, None)
        return ended

    def _check_start(self, measured: dict[str, float]) -> str | None:
        """A first stage must begin inside its budget; a later one ends where an earlier one left it outside."""
        budget = self.options.budget
        if budget is None:
            return None
        if self.stage.baseline is None:
            budget.check(measured, self.referee.start)
        broken = budget.broken(measured, self.referee.start)
        return None if broken is None else f"budget reached before: {broken}"

    def _stretch(self, trainer: Trainer, drawn: Iterator[Drawn], bar: tqdm) -> str | None:
        """Train up to the next evaluation and judge it. A reason to end, or None."""
        every, last = self.options.evaluate_every, self.options.steps
        hf(self.after).train()
        while True:
            try:
                self._step(trainer, next(drawn))
            except NotFiniteError as error:
                return self._give_up(trainer, str(error))
            bar.n = trainer.step
            bar.refresh()
            if trainer.step % every == 0 or trainer.step >= last:
                break
        hf(self.after).eval()
        with torch.no_grad():
            measured = self.stage.watch.measure(self.after)
        told = {"forget": "forget_recall", "kl": "text_kl"}
        bar.set_postfix({name: f"{measured[column]:.3g}" for name, column in told.items() if column in measured})
        return self._judge(trainer, measured)

    def _judge(self, trainer: Trainer, measured: dict[str, float]) -> str | None:
        broken = self.referee.crossed(measured)
        if broken is None:
            collapsed = self.referee.collapsed(measured)
            if collapsed is not None:
                self._note(trainer, measured, inside=False)
                return self._give_up(trainer, collapsed)
            return self._accept(trainer, measured)
        self._note(trainer, measured, inside=False)
        if not self.stage.method.rolls_back:
            return f"budget reached: {broken}"
        scale = trainer.scale / 2
        self._back(trainer)
        trainer.scale = scale
        self.kept["trainer.trainer"][1] = scale
        if self.referee.exhausted:
            return f"budget reached: {broken}"
        self._write()
        return None

    def _accept(self, trainer: Trainer, measured: dict[str, float]) -> str | None:
        """A state inside the budget: note it, keep it, and see whether it is the last."""
        self._note(trainer, measured, inside=True)
        self.kept = {name: tensor.cpu() for name, tensor in self._state(trainer).items()}
        ended = self.referee.done(measured)
        if ended is None and trainer.step >= self.options.steps:
            ended = "all steps done"
        if ended is None:
            self._write()
        return ended

    def _give_up(self, trainer: Trainer, why: str) -> str:
        self._back(trainer)
        log.warning("%s collapsed (%s); the model is that of step %d", self.stage.method.name, why, trainer.step)
        return f"collapsed: {why}; back to step {trainer.step}"

    def _step(self, trainer: Trainer, drawn: Drawn) -> None:
        """One step; where memory does not suffice, in twice as many pieces."""
        smallest = min(len(index) for index in drawn.values())
        while True:
            progress = trainer.step / self.options.steps
            pieces = assemble(self.sources, drawn, self.pieces, progress)
            try:
                losses = trainer.advance(pieces)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if self.pieces * 2 > smallest:
                    raise UserError(
                        f"out of memory even with {smallest // self.pieces} rows at a time: train fewer parameters "
                        "(trainable=…), switch checkpointing on, or take a larger device"
                    ) from error
                self.pieces *= 2
                log.warning("out of memory: going on with a step in %d pieces", self.pieces)
                continue
            self.diary.trained(losses, sum(piece.n_tokens for piece in pieces))
            self.routine.after_step(trainer.step)
            return

    def _note(self, trainer: Trainer, measured: dict[str, float], inside: bool) -> None:
        self.diary.note(trainer.step, measured, inside=inside, scale=trainer.scale)

    def _state(self, trainer: Trainer) -> dict[str, Tensor]:
        whole = {f"trainer.{name}": tensor for name, tensor in trainer.state().items()}
        return whole | {f"routine.{name}": tensor.clone() for name, tensor in self.routine.state().items()}

    def _back(self, trainer: Trainer) -> None:
        """To the last state inside the budget."""
        self._put(trainer, self.kept)
        hf(self.after).eval()

    def _put(self, trainer: Trainer, state: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        trainer.restore(under("trainer."))
        self.routine.restore(under("routine."))

    def _write(self) -> None:
        """Runs are saved only where the state is the one that is kept, so it is written once."""
        note = {
            "rows": self.diary.rows,
            "tokens": self.diary.tokens,
            "seconds": self.diary.seconds,
            "pieces": self.pieces,
            "start": self.referee.start,
            "referee": [self.referee.crossings, self.referee.waited, self.referee.lowest],
        }
        self.save.write(self.kept, note)

    def _resume(self, trainer: Trainer, state: dict[str, Tensor], note: dict[str, Any]) -> None:
        self.kept = state
        self._put(trainer, state)
        self.diary.rows, self.diary.tokens, self.diary.seconds = note["rows"], note["tokens"], note["seconds"]
        self.pieces = note["pieces"]
        self.referee = self._referee(note["start"])
        self.referee.crossings, self.referee.waited, self.referee.lowest = note["referee"]

    def _referee(self, start: dict[str, float]) -> Referee:
        options = self.options
        return Referee(start, options.budget, self.stage.goals, options.patience, self.after.cfg.d_vocab)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


@contextmanager
def _checkpointing(after: TransformerBridge, options: Options) -> Iterator[None]:
    """Gradient checkpointing for the time of the stage, where it is asked for."""
    if not options.checkpointing:
        yield
        return
    hf(after).gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        hf(after).gradient_checkpointing_disable()
