"""Relearning with facts of one's own: train on these, ask for those."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import UserError, check_whole
from ..facts import Fact, Facts, FactSource, fact_of, tokenize, tokens_hash
from ..models import Source, fingerprint
from ..models.forward import check_batch_size
from ..models.properties import context_of
from ..naming import run_name
from ..runs import begun, check_run
from ..undoing import as_found
from .attack import ask, attack_settings, finished, once, opened
from .base import Attempt
from .kinds.relearn import Relearn
from .result import Attacks


@as_found
@checked
def relearn(
    model: Source,
    train: FactSource,
    test: FactSource,
    *,
    settings: Relearn | None = None,
    never_knew: Source | None = None,
    prompts: str = "held_out",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Attacks:
    """Fine-tune copies of the model on the facts `train`, and ask for the facts `test` before and after every epoch.

    `attack(model, facts, suite="relearn")` does this for the folds of a forget set and for a grid of settings.

    Args:
        model: the model after unlearning, as `load` takes it; it is not changed.
        train, test: facts that tell nothing about each other, each a `Facts`, a file or a built-in name; `test` counts
            as forgotten, whatever its role.
        settings: how to train; `data` and `subsets` of it have no meaning here.
        never_knew: a model trained in the same way without the forget facts, to be attacked alike.
        prompts: in which phrasings `test` is asked: "held_out", "own" or "all" (`Facts.questions`).
        batch_size: rows in one forward pass when asking.
        device, dtype: where to put the models, and how precise they are to be; None: as `load` has it.
        seed: decides batches, and the options of choices.
        run: a run folder; a finished run of the same settings is opened, an interrupted one goes on after the last
            model that was finished.
        name: what the run is called on pages and in tables; None: as its folder.
        progress: show progress bars.

    Raises:
        UserError: what `load` and `Facts.of` refuse; no facts to train or to ask, a fact in both (the same phrasing
            with the same answer, or the same id, subject and answer), weights below float32; as `tokenize` does.
    """
    check_run(run, "attacks")
    named = run_name(name)
    check_batch_size(batch_size)
    check_whole("seed", seed, 0)
    train, test, attack = Facts.of(train), Facts.of(test), settings or Relearn()
    for name, facts in (("train on", train), ("ask for", test)):
        if not len(facts):
            raise UserError(f"relearn: there are no facts to {name} in {facts!r}")
    trained = {sign for fact in train for sign in _signs(fact)}
    if both := [fact.id for fact in test if not trained.isdisjoint(_signs(fact))]:
        raise UserError(f"relearn: {len(both)} facts are trained and asked (first: {both[0]!r}); keep them apart")
    questions = test.with_items(replace(fact, role="forget") for fact in test).questions(prompts)
    subjects = opened({"after": model, "never-knew": never_knew}, device, dtype)
    made_with = {
        "attacks": [attack_settings(attack)],
        "left_out": {},
        "train": train.hash,
        "test": test.hash,
        "prompts": prompts,
        "tokens": tokens_hash(tokenize(questions, subjects["after"].tokenizer, context=context_of(subjects["after"]))),
        "models": {name: fingerprint(one) for name, one in subjects.items()},
        "seed": seed,
    }

    def relearned(name: str, subject: TransformerBridge) -> pd.DataFrame:
        """What one model says, as it is and after every epoch."""
        frames = [ask(Attempt(subject, questions), batch_size, "none", name)]
        for step, state in attack.learn(subject, train, seed, f"relearning, {name}" if progress else None):
            attempt = Attempt(state, questions, attack.label, train.name, step)
            frames.append(ask(attempt, batch_size, attack.name, name))
        return pd.concat(frames, ignore_index=True)

    with begun(run, "attacks", made_with) as folder:
        if folder is not None and folder.finished:
            return Attacks.load(folder.path)
        asked = [fact.id for fact in questions]
        frames = [once(folder, name, partial(relearned, name, subject), asked) for name, subject in subjects.items()]
        reached = {attack.label: attack.reaches(subjects["after"])}
        return finished(frames, made_with, subjects, folder, reached, (), named)


def _signs(fact: Fact) -> set[tuple[str | None, ...]]:
    """What tells a fact, in whatever phrasing it comes: held-out phrasings are facts of their own, with its id."""
    phrasings = (fact.prompt, *fact.paraphrases, *fact.held_out)
    return {(phrasing, fact.answer) for phrasing in phrasings} | {(fact_of(fact.id), fact.subject, fact.answer)}
