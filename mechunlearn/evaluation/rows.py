"""The measures of every question, and of every passage of general text: the rows that summaries are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Facts, Template, Tokens, fact_of, tokenize
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers
from .choosing import score_choices
from .disruption import per_text_kl, per_text_loss
from .fitting import LeftOut, left_out
from .generation import greedy_answers
from .measures import MEASURES, TEXT, chosen_measures
from .truth import score_truth

TOGETHER = 512  # questions in one piece of a run
FIELDS = ("subject", "relation", "domain", "fold", "role")  # of a fact, that a row repeats

Kept = Callable[[str, Callable[[], pd.DataFrame], Sequence[str]], pd.DataFrame]
"""A piece of a run by its name: read where it is finished, else computed; made of the questions that are named."""


def afresh(name: str, compute: Callable[[], pd.DataFrame], of: Sequence[str]) -> pd.DataFrame:  # noqa: ARG001
    """Always computed."""
    return compute()


def per_question(
    model: LanguageModel,
    facts: Facts,
    *,
    before: LanguageModel | None = None,
    measures: Sequence[str] | None = None,
    template: Template | None = None,
    options: int = 4,
    letters: bool = True,
    max_new_tokens: int = 30,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    kept: Kept = afresh,
) -> pd.DataFrame:
    """The measures of every question, asked by its prompt. Other arguments are those of `evaluate`.

    Args:
        kept: gives a piece that an earlier run has finished, or computes it.
        model, before: what `load` gives, or any callable like it that carries a tokenizer.
        facts: questions, as `Facts.questions` gives them.

    Returns:
        One row a question, in their order: question, fact, subject, relation, domain, fold, role, then one column a
        measure; NaN where a fact has too few distractors, or is too long for it (only where `measures` is None).

    Raises:
        UserError: as `evaluate`; a measure of general text.
    """
    wanted = chosen_measures(measures, before=before is not None, text=False)
    form = {"template": template, "batch_size": batch_size, "options": options, "letters": letters,
            "max_new_tokens": max_new_tokens, "seed": seed, "progress": progress}  # fmt: skip
    asked = {"options": options, "letters": letters, "max_new_tokens": max_new_tokens, "seed": seed}
    without = {} if measures is not None else not_taken(model, facts, wanted, template=template, **asked)
    columns = {name: np.full(len(facts), np.nan) for name in wanted}
    for made_by in dict.fromkeys(MEASURES[name].made_by for name in wanted):
        names = [name for name in wanted if MEASURES[name].made_by == made_by]
        taken = [row for row in range(len(facts)) if row not in without.get(made_by, ())]
        for first in range(0, len(taken), TOGETHER):
            rows = taken[first : first + TOGETHER]
            some = facts.with_items(facts[row] for row in rows)
            compute = partial(_passed, made_by, names, model, some, before, **form)
            found = kept(f"{made_by}-{first:06d}", compute, [fact.id for fact in some])
            for name in names:
                columns[name][rows] = found[name].to_numpy()
    return labels(facts).assign(**columns)


def _passed(
    made_by: str, names: Sequence[str], model: LanguageModel, facts: Facts, before: LanguageModel | None,
    *, template: Template | None, batch_size: int, options: int, letters: bool, max_new_tokens: int, seed: int,
    progress: bool,
) -> pd.DataFrame:  # fmt: skip
    """One pass over these questions, and a column for each measure that is made by it."""
    form = {"template": template or facts.template, "batch_size": batch_size}
    scores: Any
    if made_by == "answer":
        tokens = tokenize(facts, tokenizer_of(model), template, context=context_of(model))
        scores = score_answers(model, tokens, batch_size)
    elif made_by == "generation":
        said = form | {"template": template, "max_new_tokens": max_new_tokens, "progress": progress}
        now, then = (greedy_answers(_bridge(one), facts, **said) for one in (model, before))
        scores = list(zip(now, then, strict=True))
    elif made_by == "choice":
        scores = score_choices(model, list(facts), seed=seed, options=options, letters=letters, **form)
    else:
        scores = score_truth(model, list(facts), seed=seed, **form)
    return pd.DataFrame({name: torch.as_tensor(MEASURES[name].of(scores), dtype=torch.float64) for name in names})


def not_taken(
    model: LanguageModel, facts: Facts, wanted: Sequence[str], *, template: Template | None, **form: Any
) -> dict[str, LeftOut]:
    """The questions that are left out of each kind of measure, where the measures are not asked for by name."""
    kinds = dict.fromkeys(MEASURES[name].made_by for name in wanted)
    found = {made_by: left_out(model, facts, made_by, template=template or facts.template, **form) for made_by in kinds}
    return {made_by: rows for made_by, rows in found.items() if rows}


def labels(facts: Facts) -> pd.DataFrame:
    """Which question a row is about: its id, that of its fact, and the fact's fields."""
    # Types that keep missing values apart, so that a column comes back from a file as it was.
    fields = {
        field: pd.Series([getattr(fact, field) for fact in facts], dtype="Int64" if field == "fold" else "string")
        for field in FIELDS
    }
    names = [fact.id for fact in facts]
    return pd.DataFrame({"question": names, "fact": [fact_of(name) for name in names], **fields})


def per_text(
    model: LanguageModel,
    text: Sequence[str] | Tokens,
    *,
    before: LanguageModel | None = None,
    measures: Sequence[str] | None = None,
    batch_size: int = 64,
    kept: Kept = afresh,
) -> pd.DataFrame:
    """The measures of general text, passage by passage; `kept` as in `per_question`.

    Returns:
        One row a text: `tokens` (how many are predicted), then `text_loss` and `text_kl` in nats per token.

    Raises:
        UserError: as `evaluate` and `per_text_loss`; a measure that is none of text.
    """
    names = chosen_measures(measures, before=before is not None, text=True)
    if measures is not None and not set(names) <= set(TEXT):
        raise UserError(f"measures of general text are {', '.join(TEXT)}; got {', '.join(names)}")
    parts = [
        kept(name, partial(_of_texts, name, model, text, before, batch_size), [])
        for name in names if name in TEXT
    ]  # fmt: skip
    return pd.DataFrame({str(name): column for part in parts for name, column in part.items()})


def _of_texts(
    name: str, model: LanguageModel, text: Sequence[str] | Tokens, before: LanguageModel | None, batch_size: int
) -> pd.DataFrame:
    """How many tokens of each text are predicted, and one measure of them."""
    if name == "text_loss":
        found = per_text_loss(model, text, batch_size)
    else:
        assert before is not None  # chosen_measures saw to it
        found = per_text_kl(model, before, text, batch_size)
    return pd.DataFrame({"tokens": found.tokens.numpy(), name: (found.total / found.tokens).numpy()})


def _bridge(model: LanguageModel | None) -> TransformerBridge:
    if not isinstance(model, TransformerBridge):
        raise UserError(f"rouge_l and bleu: models must be opened with load(); this is {type(model)}")
    return model
