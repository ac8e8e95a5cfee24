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
from ..facts import Facts, Template, Tokens, fact_of, tokenize
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers
from .choosing import score_choices
from .disruption import per_text_kl, per_text_loss
from .fitting import LeftOut, left_out
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
        measure; NaN where a fact has too few distractors, or is too long for it (only where `measures` is None).

    Raises:
        UserError: as `evaluate`; a measure of general text.
    """
    wanted = chosen_measures(measures, before=before is not None, text=False)
    form = {"template": template or facts.template, "batch_size": batch_size}
    asked = {"options": options, "letters": letters, "max_new_tokens": max_new_tokens, "seed": seed}
    without = {} if measures is not None else not_taken(model, facts, wanted, template=template, **asked)
    passes: dict[str, tuple[Any, list[int]]] = {}  # what a pass gives, and for which rows
    for made_by in dict.fromkeys(MEASURES[name].made_by for name in wanted):
        kept = [row for row in range(len(facts)) if row not in without.get(made_by, ())]
        some = facts.with_items(facts[row] for row in kept)
        if made_by in without and not kept:
            continue
        if made_by == "answer":
            tokens = tokenize(facts, tokenizer_of(model), template, context=context_of(model))
            passes[made_by] = score_answers(model, tokens, batch_size), kept
        elif made_by == "generation":
            said = form | {"template": template, "max_new_tokens": max_new_tokens, "progress": progress}
            now, then = (greedy_answers(_bridge(one), some, **said) for one in (model, before))
            passes[made_by] = list(zip(now, then, strict=True)), kept
        elif made_by == "choice":
            shown = {"options": options, "letters": letters}
            passes[made_by] = score_choices(model, list(some), seed=seed, **shown, **form), kept
        else:
            passes[made_by] = score_truth(model, list(some), seed=seed, **form), kept
    columns = {name: _column(MEASURES[name], passes, len(facts)) for name in wanted}
    return labels(facts).assign(**columns)


def not_taken(
    model: LanguageModel, facts: Facts, wanted: Sequence[str], *, template: Template | None, **form: Any
) -> dict[str, LeftOut]:
    """The questions that are left out of each kind of measure, where the measures are not asked for by name."""
    kinds = dict.fromkeys(MEASURES[name].made_by for name in wanted)
    found = {made_by: left_out(model, facts, made_by, template=template or facts.template, **form) for made_by in kinds}
    return {made_by: rows for made_by, rows in found.items() if rows}


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
