"""One stretch of unlearning: from a start model, step by step, under one budget, to the state that is kept."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ...errors import NotFiniteError, UserError
from ...models import clone, hf
from ...training import Trainer, borrowed
from ...undoing import undone
from ..data.batches import Draws, Sources, assemble
from ..method import Method, Routine
from ..options import Options
from .announce import announcement
from .budget import Referee
from .checkpoints import Save, under
from .evaluations import Diary, Watch
from .journal import Journal
from .memory import out_of_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a stage ends with: the model that is kept, of the given step; `frame` as in `Unlearning`."""

    model: TransformerBridge
    frame: pd.DataFrame
    stopped: str
    step: int


@dataclass
class Stage:
    """Everything that one stretch needs.

    Attributes:
        start: the model it begins with; what is retained and what references mean is its. It is not changed.
        baseline: what was measured of the model before the first stage, from which disruption counts; None where
            this is the first.
        measured: what was measured of the start model, where that is known already.
        goals: recall columns that must come down, with how far.
        scale: of the step size that it begins with: what an earlier stage under the same budget came down to.
        folder: where an interrupted stage goes on; None keeps nothing.
        journal: tells of each evaluation.
        label: names the progress bar; None hides it.
        announces: whether to say first what a step costs.
    """

    method: Method
    start: TransformerBridge
    sources: Sources
    watch: Watch
    options: Options
    goals: dict[str, float]
    scale: float = 1.0
    baseline: dict[str, float] | None = None
    measured: dict[str, float] | None = None
    folder: Path | None = None
    journal: Journal = field(default_factory=Journal)
    label: str | None = None
    announces: bool = False

    def run(self) -> Outcome:
        """Train a copy of the start model until there is a reason to end."""
        after = clone(self.start)
        diary = Diary()
        sources = self.sources
        if self.method.uses_start_nll:
            sources = sources.with_start(self.start, self.options.batch_size)
        with ExitStack() as stack:
            for model in (self.start, after):
                stack.enter_context(borrowed(hf(model)))
            hf(self.start).eval()
            stack.enter_context(_checkpointing(after, self.options))
            parameters = stack.enter_context(self.method.adapted(after, self.options.seed))
            if parameters is None:
                parameters = self.options.parameters(self.method, after)
            if self.announces:
                tqdm.write(announcement(self.method, self.options, self.start, sources, parameters))
            settings = self.options.settings()
            epoch = math.ceil(len(sources.forget) / self.options.batch_size)
            routine = stack.enter_context(self.method.routine(after, self.start, parameters, settings, epoch))
            trainer = Trainer(hf(after), routine.phases, self.options.seed, parameters)
            stopped = _Loop(self, after, routine, sources, diary).go(trainer)
        return Outcome(after, diary.frame(), stopped, trainer.step)


class _Loop:
    """Steps, evaluations, going back, and saving."""

    def __init__(
        self, stage: Stage, after: TransformerBridge, routine: Routine, sources: Sources, diary: Diary
    ) -> None:
        self.stage, self.after, self.routine, self.sources, self.diary = stage, after, routine, sources, diary
        self.options, self.pieces = stage.options, stage.options.accumulation
        self.draws = Draws(sources, stage.options.batch_size, stage.options.seed)
        self.save = Save(stage.folder)
        self.kept: dict[str, Tensor] = {}  # the last state inside the budget

    def go(self, trainer: Trainer) -> str:
        """Until there is a reason to end, which is returned; the model is then in the state to be kept."""
        found = self.save.read()
        ended = self._begin(trainer) if found is None else self._resume(trainer, *found)
        with tqdm(
            total=self.options.steps, initial=trainer.step, desc=self.stage.label, disable=self.stage.label is None
        ) as bar:
            while ended is None:
                ended = self._stretch(trainer, bar)
        return ended

    def _begin(self, trainer: Trainer) -> str | None:
        """Judge the start. An earlier stage whose method does not go back may have left it outside the budget."""
        trainer.scale = self.stage.scale
        self.stage.journal.begin()
        # Of the start itself: adapters, which begin with a nudge, are not in it.
        measured = self.stage.measured or self.stage.watch.measure(self.stage.start)
        self.referee = self._referee(self.stage.baseline or measured)
        self.referee.crossings = round(-math.log2(self.stage.scale))  # halvings that an earlier stage has used up
        budget = self.options.budget
        broken = None if budget is None else budget.broken(measured, self.referee.start)
        if broken is not None:
            self._note(trainer, measured, inside=False)
            return f"budget reached before: {broken}"
        return self._accept(trainer, measured)

    def _stretch(self, trainer: Trainer, bar: tqdm) -> str | None:
        """Train up to the next evaluation and judge it. A reason to end, or None."""
        every, last = self.options.evaluate_every, self.options.steps
        hf(self.after).train()
        try:
            while True:
                self._step(trainer)
                bar.n = trainer.step
                bar.refresh()
                if trainer.step % every == 0 or trainer.step >= last:
                    break
            hf(self.after).eval()
            measured = self.stage.watch.measure(self.after)
        except NotFiniteError as error:
            return self._give_up(trainer, str(error))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return self._split(trainer, error)
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
        self.kept = self._state(trainer)
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

    def _step(self, trainer: Trainer) -> None:
        progress = trainer.step / self.options.steps
        pieces = assemble(self.sources, self.draws[trainer.step], self.pieces, progress)
        losses = trainer.advance(pieces)
        self.diary.trained(losses, sum(piece.n_tokens for piece in pieces))
        self.routine.after_step(trainer.step)

    def _split(self, trainer: Trainer, error: RuntimeError) -> None:
        """Memory did not suffice: twice as many pieces a step from now on.

        A step that failed half-way may have moved weights, or what the method remembers; so from the last kept state.

        Raises:
            UserError: a step is in single rows already.
        """
        if self.pieces == self.options.batch_size:
            raise UserError(
                "out of memory even with one row of each kind at a time: train fewer parameters (trainable=…), "
                "switch checkpointing on, or take a larger device"
            ) from error
        self.pieces = min(2 * self.pieces, self.options.batch_size)
        self._back(trainer)
        self.diary.undo()
        log.warning("out of memory: from step %d on, each step is split into %d pieces", trainer.step, self.pieces)

    def _note(self, trainer: Trainer, measured: dict[str, float], inside: bool) -> None:
        self.diary.note(trainer.step, measured, inside=inside, scale=trainer.scale)
        self.stage.journal.tell(self.diary.rows[-1])

    def _state(self, trainer: Trainer) -> dict[str, Tensor]:
        whole = {f"trainer.{name}": tensor for name, tensor in trainer.state().items()}
        return whole | {
            f"routine.{name}": tensor.detach().to("cpu", copy=True) for name, tensor in self.routine.state().items()
        }

    def _back(self, trainer: Trainer) -> None:
        """To the last state inside the budget."""
        self._put(trainer, self.kept)
        hf(self.after).eval()

    def _put(self, trainer: Trainer, state: dict[str, Tensor]) -> None:
        trainer.restore(under(state, "trainer."))
        self.routine.restore(under(state, "routine."))

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
        self.stage.journal.begin(self.diary.rows)
        self.pieces = note["pieces"]
        self.referee = self._referee(note["start"])
        self.referee.crossings, self.referee.waited, self.referee.lowest = note["referee"]

    def _referee(self, start: dict[str, float]) -> Referee:
        options = self.options
        return Referee(start, options.budget, self.stage.goals, options.patience, self.after.cfg.d_vocab)


@contextmanager
def _checkpointing(after: TransformerBridge, options: Options) -> Iterator[None]:
    """Gradient checkpointing for the time of the stage, where it is asked for."""
    if not options.checkpointing:
        yield
        return

    def off() -> None:
        with _silent():
            hf(after).gradient_checkpointing_disable()

    with undone(off):
        with _silent():
            hf(after).gradient_checkpointing_enable({"use_reentrant": False})
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """transformers 5 has two names for gradient checkpointing, and warns of the older."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
