"""Relearning with facts of one's own: train on these, ask for those."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Fact, Facts, fact_of
from .attack import ask, describe
from .base import Attempt, asked
from .kinds.relearn import Relearn
from .result import Attacks


def relearn(
    model: TransformerBridge,
    train: Facts,
    test: Facts,
    settings: Relearn | None = None,
    *,
    never_knew: TransformerBridge | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> Attacks:
    """Fine-tune copies of the model on the facts `train`, and ask for the facts `test` before and after every epoch.

    `attack(model, "relearn", facts=…)` does this for the folds of a forget set and for a grid of settings.

    Args:
        model: the model after unlearning; it is not changed.
        train, test: facts that tell nothing about each other; `test` is asked in its held-out phrasings where it has
            any, and counts as forgotten, whatever its role.
        settings: how to train; `data` and `subsets` of it have no meaning here.
        never_knew: a model trained in the same way without the forget facts, to be attacked alike.

    Raises:
        UserError: no facts to train or to ask, a fact in both (the same phrasing with the same answer, or the same id,
            subject and answer), weights below float32; as `tokenize` does.
    """
    settings = settings or Relearn()
    for name, facts in (("train on", train), ("ask for", test)):
        if not len(facts):
            raise UserError(f"relearn: there are no facts to {name} in {facts!r}")
    trained = {sign for fact in train for sign in _signs(fact)}
    if both := [fact.id for fact in test if not trained.isdisjoint(_signs(fact))]:
        raise UserError(f"relearn: {len(both)} facts are trained and asked (first: {both[0]!r}); keep them apart")
    questions = asked(test.with_items(replace(fact, role="forget") for fact in test))
    frames = []
    for name, subject in (("after", model), ("never-knew", never_knew)):
        if subject is None:
            continue
        frames.append(ask(Attempt(subject, questions), batch_size, "none", name))
        for step, state in settings.learn(subject, train, seed, f"relearning, {name}" if progress else None):
            attempt = Attempt(state, questions, settings.label, train.name, step)
            frames.append(ask(attempt, batch_size, settings.name, name))
    frame = pd.concat(frames, ignore_index=True)
    about = {"attacks": [describe(settings)], "train": train.hash, "test": test.hash, "seed": seed, "left_out": {}}
    return Attacks(frame, {"settings": about})


def _signs(fact: Fact) -> set[tuple[str | None, ...]]:
    """What tells a fact, in whatever phrasing it comes: held-out phrasings are facts of their own, with its id."""
    phrasings = (fact.prompt, *fact.paraphrases, *fact.held_out)
    return {(phrasing, fact.answer) for phrasing in phrasings} | {(fact_of(fact.id), fact.subject, fact.answer)}
