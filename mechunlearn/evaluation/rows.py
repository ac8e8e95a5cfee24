"""The measures of every question, and of every passage of general text: the rows that summaries are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Facts, Template, Tokens, fact_of, tokenize, wrong_answers
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers
from .choosing import score_choices
from .disruption import per_text_kl, per_text_loss
from .generation import greedy_answers
from .measures import MEASURES, TEXT, Measure, chosen_measures
from .truth import score_truth

FIELDS = ("subject", "relation", "domain", "fold", "role")  # of a fact, that a row repeats


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
) -> pd.DataFrame:
    """The measures of every question, asked by its prompt. Other arguments are those of `evaluate`.

    Args:
        model, before: what `load` gives, or any callable like it that carries a tokenizer.
        facts: questions, as `Facts.questions` gives them.

    Returns:
        One row a question, in their order: question, fact, subject, relation, domain, fold, role, then one column a
        measure; NaN where a fact has too few distractors (only where `measures` is None).

    Raises:
        UserError: as `evaluate`; a measure of general text.
    """
    wanted = chosen_measures(measures, before=before is not None, text=False)
    form = {"template": template or facts.template, "batch_size": batch_size}
    every = list(range(len(facts)))
    passes: dict[str, tuple[Any, list[int]]] = {}  # what a pass gives, and for which rows
    for made_by in dict.fromkeys(MEASURES[name].made_by for name in wanted):
        if made_by == "answer":
            tokens = tokenize(facts, tokenizer_of(model), template, context=context_of(model))
            passes[made_by] = score_answers(model, tokens, batch_size), every
        elif made_by == "generation":
            said = form | {"template": template, "max_new_tokens": max_new_tokens, "progress": progress}
            now, then = (greedy_answers(_bridge(one), facts, **said) for one in (model, before))
            passes[made_by] = list(zip(now, then, strict=True)), every
        else:
            least = {"choice": options - 1, "truth": 1}[made_by] if measures is None else 0
            kept = [row for row in every if len(wrong_answers(facts[row])) >= least]
            if kept and made_by == "choice":
                shown = {"options": options, "letters": letters}
                passes[made_by] = score_choices(model, [facts[row] for row in kept], seed=seed, **shown, **form), kept
            elif kept:
                passes[made_by] = score_truth(model, [facts[row] for row in kept], seed=seed, **form), kept
    columns = {name: _column(MEASURES[name], passes, len(facts)) for name in wanted}
    return labels(facts).assign(**columns)


def _column(measure: Measure, passes: dict[str, tuple[Any, list[int]]], size: int) -> Float[np.ndarray, " question"]:
    """The measure of every question; NaN where its pass left a question out."""
    column = np.full(size, np.nan)
    if measure.made_by in passes:
        scores, kept = passes[measure.made_by]
        column[kept] = torch.as_tensor(measure.of(scores), dtype=torch.float64).numpy()
    return column


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
) -> pd.DataFrame:
    """The measures of general text, passage by passage.

    Returns:
        One row a text: `tokens` (how many are predicted), then `text_loss` and `text_kl` in nats per token.

    Raises:
        UserError: as `evaluate` and `per_text_loss`; a measure that is none of text.
    """
    names = chosen_measures(measures, before=before is not None, text=True)
    if measures is not None and not set(names) <= set(TEXT):
        raise UserError(f"measures of general text are {', '.join(TEXT)}; got {', '.join(names)}")
    columns = dict(_text_columns(model, text, before, [name for name in names if name in TEXT], batch_size))
    return pd.DataFrame(columns)


def _text_columns(
    model: LanguageModel,
    text: Sequence[str] | Tokens,
    before: LanguageModel | None,
    names: Sequence[str],
    batch_size: int,
) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        if name == "text_loss":
            found = per_text_loss(model, text, batch_size)
        else:
            assert before is not None  # chosen_measures saw to it
            found = per_text_kl(model, before, text, batch_size)
        yield "tokens", found.tokens.numpy()
        yield name, (found.total / found.tokens).numpy()


def _bridge(model: LanguageModel | None) -> TransformerBridge:
    if not isinstance(model, TransformerBridge):
        raise UserError(f"rouge_l and bleu: models must be opened with load(); this is {type(model)}")
    return model
