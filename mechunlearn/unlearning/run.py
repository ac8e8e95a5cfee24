"""The verb: make a model forget some facts and keep others, and write down what happened."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Facts, tokenize, tokenize_texts
from ..models import clone, fingerprint, hf, load, save
from ..runs import RunFolder, read_frame, read_run
from ..training import Settings, train
from .batches import Batch, Rows, Sources, by_role, draw, shown, spread, with_distractors
from .dpo import DPO
from .gradient_difference import GradientDifference
from .npo import NPO
from .watch import Watch

Method = GradientDifference | NPO | DPO
METHODS: dict[str, type[Method]] = {method.name: method for method in (GradientDifference, NPO, DPO)}


@dataclass(frozen=True)
class UnlearningRun:
    """A model that has unlearned, and how it came to.

    Attributes:
        model: the model after; a new one.
        frame: one row per evaluation: `step`; `loss` and its parts `loss_forget`, `loss_retain`, `loss_text`
            (means over the steps since the row before; NaN at step 0); `forget_recall`, `forget_probability`
            and the same for near, far, retain; `text_loss`, `text_kl` (nats per token); `seconds` since the
            start; `tokens` trained on so far. Retain facts are grouped by role, those without one as
            "retain"; a probability is that of an answer token.
        about: `settings` (everything that decides the result) and `stopped`, the reason why it ended.
    """

    model: TransformerBridge
    frame: pd.DataFrame
    about: dict[str, Any]


def unlearn(
    model: TransformerBridge,
    method: Method,
    forget: Facts,
    retain: Facts,
    *,
    text: Sequence[str] | None = None,
    retain_text: Sequence[str] | None = None,
    steps: int = 100,
    learning_rate: float = 4e-4,
    batch: int = 32,
    accumulation: int = 1,
    stop: float | None = None,
    evaluate_every: int = 25,
    seed: int = 0,
    run: str | Path | None = None,
    progress: bool = True,
) -> UnlearningRun:
    """Fine-tune a copy of `model` with AdamW (all parameters, linearly falling learning rate) until it has
    forgotten.

    Each fact is trained in its prompt and paraphrases and evaluated in its held-out phrasings. An optimiser
    step takes `batch` of these rows from the forget set and as many from the retain set, half of them near
    and half far where retain facts have these roles.

    Args:
        model: the model before; it is not changed.
        method: `GradientDifference()`, `NPO()` or `DPO()`.
        forget, retain: the facts to remove and to keep. Roles "near" and "far" of retain facts are reported
            apart.
        text: general text, one passage an item, on which disruption is measured; it is not trained on.
        retain_text: other general text, to be retained by cross-entropy beside the retain facts.
        steps, learning_rate: of the optimiser. The defaults suit the organism (width 128); papers take 1e-5
            for 7B models.
        accumulation: into how many parts a step is split to save memory; the result is the same up to
            rounding.
        stop: end as soon as recall on the forget facts (0..1) is at or below this; None trains all steps.
        evaluate_every: steps between evaluations; there is one before the first step and one after the last.
        seed: of the order of batches and of the choice of distractors.
        run: a run folder: `run.json`, `frame.parquet`, and the model as checkpoint in `model/`. A finished
            run of the same settings is opened instead of computed again; an unfinished one starts again.
        progress: show a progress bar.

    Raises:
        UserError: no forget or retain facts, a fact in both, a fact without answer (or, for DPO, without
            distractors) or longer than the context, a model without tokenizer, settings that make no sense,
            a run folder of other settings, a loss that is not finite.
    """
    settings = Settings(
        steps=steps, learning_rate=learning_rate, schedule="linear", accumulation=accumulation, seed=seed
    )
    _check(model, forget, retain, batch, accumulation, stop, evaluate_every)
    sources = _sources(model, method, forget, retain, retain_text, seed)
    watch = Watch(model, forget, retain, text, stop)
    made_with = {
        "method": method.name,
        **asdict(method),
        **asdict(settings),
        "batch": batch,
        "stop": stop,
        "evaluate_every": evaluate_every,
        "forget": forget.hash,
        "retain": retain.hash,
        "text": None if text is None else _hash(text),
        "retain_text": None if retain_text is None else _hash(retain_text),
    }
    folder = None
    if run is not None:
        folder = RunFolder(run, "unlearning", made_with | {"model": fingerprint(model)})
        if folder.finished:
            return _open(folder.path, model)
        # An interrupted run may have saved its model without coming to say so.
        shutil.rmtree(folder.path / "model", ignore_errors=True)

    after, steps_done = clone(model), None
    if not watch.look(after, 0):
        if method.needs_reference:
            sources = sources.with_references(model, batch)
        batches = draw(sources, batch, accumulation, seed)
        label = method.name if progress else None
        steps_done = _train(after, method, batches, watch, settings, evaluate_every, label)
    stopped = f"forget recall at or below {stop:g}" if watch.stopped else "all steps done"
    frame, about = watch.frame(steps_done), {"settings": made_with, "stopped": stopped}
    if folder is not None:
        save(after, folder.path / "model")
        folder.finish(about, frame=frame)
    return UnlearningRun(after, frame, about)


def _train(
    after: TransformerBridge,
    method: Method,
    batches: Iterator[Batch],
    watch: Watch,
    settings: Settings,
    evaluate_every: int,
    label: str | None,
) -> pd.DataFrame:
    """Change `after` in place; one row a step."""

    def loss(part: Batch) -> dict[str, Float[Tensor, ""]]:
        watch.tokens += part.n_tokens
        return method.loss(part.score(hf(after)))

    def look(step: int) -> bool:
        return watch.look(after, step)

    steps = train(hf(after), batches, loss, settings, watch=look, watch_every=evaluate_every, progress=label)
    if watch.last != len(steps):
        watch.look(after, len(steps))
    return steps


def _sources(
    model: TransformerBridge,
    method: Method,
    forget: Facts,
    retain: Facts,
    retain_text: Sequence[str] | None,
    seed: int,
) -> Sources:
    """Everything to train on, as tokens."""
    tokenizer, context = model.tokenizer, model.cfg.n_ctx

    def rows(facts: Facts) -> Rows:
        return Rows(tokenize(facts, tokenizer, context=context))

    phrasings, kept = spread(forget, shown), spread(retain, shown)
    return Sources(
        forget=rows(phrasings),
        retain=rows(kept),
        retain_groups=by_role(kept),
        alternative=rows(with_distractors(phrasings, seed)) if method.needs_alternative else None,
        text=None if retain_text is None else Rows(tokenize_texts(retain_text, tokenizer, context=context)),
    )


def _check(
    model: TransformerBridge,
    forget: Facts,
    retain: Facts,
    batch: int,
    accumulation: int,
    stop: float | None,
    evaluate_every: int,
) -> None:
    if model.tokenizer is None:
        raise UserError("the model has no tokenizer, so facts cannot be shown to it: load(..., tokenizer=...)")
    for name, facts in (("forget", forget), ("retain", retain)):
        if not len(facts):
            raise UserError(f"there are no facts to {name} in {facts!r}")
    kept = {(fact.prompt, fact.answer) for fact in retain}
    both = [fact.id for fact in forget if (fact.prompt, fact.answer) in kept]
    if both:
        raise UserError(
            f"{len(both)} of {len(forget)} facts to forget are also facts to retain (first: {both[0]!r}); "
            "take them out of one of the two"
        )
    if batch < accumulation:
        raise UserError(f"a batch of {batch} rows cannot be split into accumulation={accumulation} parts")
    if evaluate_every < 1:
        raise UserError(f"evaluate_every must be at least 1, not {evaluate_every}")
    if stop is not None and not 0 <= stop <= 1:
        raise UserError(f"stop is a recall between 0 and 1, not {stop:g}")


def _open(folder: Path, model: TransformerBridge) -> UnlearningRun:
    parameter = next(hf(model).parameters())
    after = load(folder / "model", device=parameter.device, dtype=str(parameter.dtype).removeprefix("torch."))
    return UnlearningRun(after, read_frame(folder / "frame.parquet"), read_run(folder)["about"])


def _hash(text: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(text)).encode()).hexdigest()
