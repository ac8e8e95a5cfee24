"""The verb: make a model forget some facts and keep others, and write down what happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..facts import Facts, FactSource
from ..models import Source, called, fingerprint, hf, load, load_to_ask, save
from ..naming import run_name
from ..runs import RunFolder, begun, check_run, read_frame, read_run
from ..undoing import as_found
from .configure import method_of
from .data.plan import check, plan
from .loop.budget import Budget
from .loop.checkpoints import Save
from .loop.journal import NAME, Journal, OnEvaluation, rows_of
from .loop.stage import Outcome, Stage
from .method import Method
from .methods.layered import Layered
from .options import Options
from .remaining import remaining
from .result import Unlearning, cleared, opened
from .settings import measured_settings, run_settings

log = logging.getLogger(__name__)


@as_found
@checked
def unlearn(
    model: Source,
    method: Method | Layered | str,
    forget: FactSource,
    retain: FactSource,
    *,
    text: Sequence[str] | None = None,
    retain_text: Sequence[str] | None = None,
    budget: Budget | float | None = None,
    stop: float | str | None = None,
    patience: int | None = None,
    steps: int = 100,
    learning_rate: float | None = None,
    optimizer: str = "adamw",
    schedule: str = "linear",
    warmup: int = 0,
    weight_decay: float = 0.0,
    clip: float | None = 1.0,
    batch_size: int = 32,
    accumulation: int = 1,
    precision: str = "no",
    checkpointing: bool = False,
    trainable: str | Sequence[str] | None = None,
    evaluate_every: int = 25,
    prompts: str = "held_out",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
    on_evaluation: OnEvaluation | None = None,
) -> Unlearning:
    """Change a copy of `model` until it has forgotten, or its budget is spent.

    Each fact is trained in its prompt and paraphrases, and evaluated in its held-out phrasings unless `prompts` says
    otherwise. An optimiser step takes `batch_size` of these rows from the forget set and as many from the retain set,
    half of them near and half far where retain facts have these roles, and as many passages of `retain_text`.

    Where an evaluation finds the budget crossed, the run goes back to the last state inside it, halves the step
    size and tries again, until it has halved as often as the budget allows. A model that breaks down (a loss that
    is not finite, recall on retain facts gone, predictions on general text frozen or random) goes back likewise,
    and the run ends with that reason. Where a step does not fit into memory, the run goes on from the last evaluation
    with steps in twice as many pieces, and says so.

    Args:
        model: the model before, as `load` takes it; it is not changed. Its weights must be float32.
        method: a method such as `NPO(beta=0.1)`, `Layered(method)`, or the name of one in `METHODS`.
        forget, retain: the facts to remove and to keep. Of a file or built-in name whose facts have roles, `forget`
            takes those with the role "forget", `retain` the near and far ones; a `Facts` is taken whole. Roles "near"
            and "far" of retain facts are reported apart.
        text: general text, one passage an item, on which disruption is measured; it is not trained on.
        retain_text: other general text, to be retained beside the retain facts.
        budget: the largest allowed disruption; a number means KL on `text`, in nats per token.
        stop: end as soon as recall on the forget facts (0..1) is at or below this, or at "chance"; of long answers
            (more than 4 tokens at the median) the probability of an answer token as well, for exact recall of a
            sentence is lost with its first wrong token.
        patience: end after so many evaluations in which the answers' probability did not fall.
        steps: of the optimiser, in each stage of a layered run.
        learning_rate: 4e-4 by default, which suits the organism (width 128); papers take 1e-5 for 7B models. Not
            for methods that set the length of their steps themselves (CIR).
        optimizer: "adamw", "adam" or "sgd"; with `schedule` "constant", "linear" or "cosine" after `warmup` steps,
            `weight_decay` on matrices and gradients clipped to norm `clip`.
        accumulation: into how many pieces a step is split to save memory; the result is the same up to rounding.
        precision: "bf16" computes under autocast; the weights stay in float32 either way.
        checkpointing: compute activations again in the backward pass rather than keep them.
        trainable: parameter sites ("value_vectors", "mlp_keys", "attention", "embedding", …) or regular expressions
            over parameter names; None: what the method trains.
        evaluate_every: steps between evaluations; there is one before the first step and one after the last.
        prompts: in which phrasings evaluation asks: "held_out", "own" or "all" (`Facts.questions`).
        device, dtype: where to put the model, and how precise it is to be; None: as `load` has it.
        seed: of the order of batches, of distractors, of control vectors and adapters.
        run: a run folder: `run.json`, `frame.parquet`, and the model as checkpoint in `model/` (of every stage of a
            layered run also in `stages/1/`, …). While the run lasts, `log.jsonl` gets a line of JSON for each
            evaluation as it happens (`tail -f`); at the end its lines are the rows of the frame, each without the
            columns that have no value there. A finished run of the same settings is opened instead of computed again;
            an interrupted one goes on, to the same weights bit for bit on the same machine.
        name: what the run is called on pages and in tables, and so is its model; None: as its folder, else as the
            method.
        progress: show a progress bar, say beforehand what a step costs, and warn at the end of what is still answered
            (`about["remaining"]`, which `repr` shows too).
        on_evaluation: called after each evaluation with its row: a dict of `stage`, `step` and what else the frame has
            a value for. What it returns is not looked at, and it changes nothing about the run. What it raises ends
            the run, which a run folder then goes on with. A run that goes on tells the new rows only, among them such
            as were told before the interruption and had to be computed again because no state was kept behind them; a
            finished run that is opened tells none.

    Raises:
        UserError: what `load` and `Facts.of` refuse; an unknown method, no forget or retain facts, a fact in both, a
            fact without answer (or, for DPO, without distractors) or longer than the context, a model without
            tokenizer, settings that make no sense, a budget that cannot be measured or that the start breaks, a run
            folder of other settings.
    """
    check_run(run, "unlearning")
    named = run_name(name)
    options = Options(
        steps=steps, learning_rate=learning_rate, optimizer=optimizer, schedule=schedule, warmup=warmup,
        weight_decay=weight_decay, clip=clip, batch_size=batch_size, accumulation=accumulation, precision=precision,
        checkpointing=checkpointing, trainable=(trainable,) if isinstance(trainable, str) else _tuple(trainable),
        budget=Budget(kl=budget) if isinstance(budget, int | float) else budget,
        stop=stop, patience=patience, evaluate_every=evaluate_every, prompts=prompts, seed=seed,
    )  # fmt: skip
    method = method_of(method)
    forget, retain = Facts.of(forget, role="forget"), Facts.of(retain, role=("near", "far"))
    check(forget, retain, {"text": text, "retain_text": retain_text})
    model = load_to_ask(model, device=device, dtype=dtype)
    layered = method if isinstance(method, Layered) else Layered(method=method, folds=1)
    options.check(layered.method, model)
    made_with = run_settings(model, method, options, forget, retain, text, retain_text)
    known = None if run is None else RunFolder(run, "unlearning", made_with, begin=False)
    if known is not None and known.finished:
        Save(known.path).remove()  # where the run was interrupted at its very end
        known.leave()
        return opened(known.path, read_run(known.path)["about"], **_like(model))

    plain = not isinstance(method, Layered)
    stages = plan(model, layered, forget, retain, text, retain_text, options, plain)
    if known is None or not known.exists:  # whatever can be refused is refused before anything is written
        measured = stages[0].watch.measure(model)
        if options.budget is not None:
            options.budget.check(measured, measured)
        stages[0] = replace(stages[0], measured=measured)
    for place, stage in enumerate(stages, start=1):
        stage.announces = progress and place == 1
        if progress:
            stage.label = method.name if plain else f"{method.name} {place}/{len(stages)}"
    fitted = measured_settings(layered.method, stages[0].method)
    with begun(run, "unlearning", made_with) as folder:
        if folder is not None and folder.finished:  # by another process, in the meantime
            return Unlearning.load(folder.path, **_like(model))
        found = _run(stages, folder, made_with, plain, fitted, named, on_evaluation)
    if "remaining" in found.about:  # whoever asked for no progress reads it in the result
        log.log(logging.WARNING if progress else logging.INFO, "%s: %s", made_with["method"], found.about["remaining"])
    return found


def _run(
    stages: Sequence[Stage],
    folder: RunFolder | None,
    made_with: dict[str, Any],
    plain: bool,
    fitted: dict[str, Any],
    named: dict[str, str],
    on_evaluation: OnEvaluation | None,
) -> Unlearning:
    """One stage after the other, each from where the one before ended. `fitted` are settings that were measured,
    `named` is the run's name."""

    def about_of(found: Outcome) -> dict[str, Any]:
        told: dict[str, Any] = {"settings": made_with, "stopped": found.stopped, "step": found.step, **named}
        told["weights"] = fingerprint(found.model)["weights"]  # by which a report knows what else was done to the model
        if fitted:
            told["measured_settings"] = fitted
        left = remaining(found.frame, told, stages[0].method, stages[0].start, found.model)
        return told if left is None else told | {"remaining": left}

    frames: list[pd.DataFrame] = []
    reasons: list[str] = []
    models: list[TransformerBridge | Path] = []
    model, step = stages[0].start, 0
    journal = Journal(None if folder is None else folder.path / NAME, on_evaluation)
    for place, stage in enumerate(stages, start=1):
        where = _stage_folder(folder, place, plain)
        baseline = _baseline(frames[0]) if frames else None
        spent = {name: frames[-1][name].iloc[-1].item() for name in ("seconds", "tokens")} if frames else {}
        # A step that was too long for the budget is so in the next stage, too: disruption counts from the same start.
        scale = float(frames[-1]["scale"].iloc[-1]) if frames else stage.scale
        earlier = [row for frame in frames for row in rows_of(frame)]
        told = replace(journal, stage=place, spent=spent | {"step": step}, earlier=earlier)
        here = replace(stage, start=model, baseline=baseline, scale=scale, journal=told)
        outcome = _run_stage(here, where, about_of)
        step = outcome.step
        frames.append(outcome.frame)
        reasons.append(outcome.stopped if plain else f"stage {place}: {outcome.stopped}")
        model = outcome.model
        models.append(model if where is None else where.path / "model")
    frame = pd.concat(frames, ignore_index=True)
    journal.mend(rows_of(frame))  # also where stages were only opened
    if folder is not None and plain:
        about = read_run(folder.path)["about"]  # of its only stage: the weights need no second look
    else:
        about = about_of(Outcome(model, frame, "; ".join(reasons), step))
    model.cfg.model_name = named.get("name") or (made_with["method"] if folder is None else called(str(folder.path)))
    if folder is not None and not plain:
        save(model, cleared(folder.path / "model"))
        folder.finish(about | {"stages": len(stages)}, ("model",), frame=frame)
    return Unlearning(model, frame, about, tuple(models))


def _run_stage(stage: Stage, folder: RunFolder | None, about_of: Callable[[Outcome], dict[str, Any]]) -> Outcome:
    """The stage's outcome: computed, gone on with, or opened; steps and costs count on from those before."""
    if folder is not None and folder.finished:
        about = read_run(folder.path)["about"]
        Save(folder.path).remove()  # where the run was interrupted at its very end
        frame = read_frame(folder.path / "frame.parquet")
        model = load(folder.path / "model", **_like(stage.start))
        return Outcome(model, frame, about["stopped"], about["step"])
    found = replace(stage, folder=None if folder is None else folder.path).run()
    spent = stage.journal.spent
    frame = found.frame.assign(**{name: found.frame[name] + before for name, before in spent.items()})
    frame.insert(0, "stage", stage.journal.stage)
    outcome = replace(found, frame=frame, step=found.step + int(spent["step"]))
    if folder is not None:
        save(outcome.model, cleared(folder.path / "model"))
        folder.finish(about_of(outcome), ("model",), frame=frame)
        Save(folder.path).remove()
    return outcome


def _stage_folder(folder: RunFolder | None, place: int, plain: bool) -> RunFolder | None:
    if folder is None or plain:
        return folder
    found = RunFolder(folder.path / "stages" / str(place), "unlearning", folder.settings | {"stage": place})
    found.tidy()
    return found


def _baseline(frame: pd.DataFrame) -> dict[str, float]:
    """What was measured of the model before."""
    return {str(name): float(value) for name, value in frame.iloc[0].items() if not pd.isna(value)}


def _like(model: TransformerBridge) -> dict[str, Any]:
    """Where and how precise this model is: what makes a checkpoint load alike."""
    parameter = next(hf(model).parameters())
    return {"device": parameter.device, "dtype": str(parameter.dtype).removeprefix("torch.")}


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
