"""The measures of every question, and of every passage of general text: the rows that summaries are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Facts, Template, Tokens, fact_of, tokenize, wrong_answers
from ..models.properties import LanguageModel, context_of, tokenizer_of
from .answers import score_answers
from .choosing import score_choices
from .disruption import per_text_kl, per_text_loss
from .generation import greedy_answers
from .measures import MEASURES, TEXT, chosen_measures
from .overlap import bleu, rouge_l
from .truth import closer_to_one, score_truth, true_better

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
    """The measures of every fact as it stands, asked by its prompt. Other arguments are those of `evaluate`.

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
    needed = {MEASURES[name].made_by for name in wanted}
    found: dict[str, Float[np.ndarray, " fact"]] = {}
    if "answer" in needed:
        tokens = tokenize(facts, tokenizer_of(model), template, context=context_of(model))
        scores = score_answers(model, tokens, batch_size)
        found |= {
            "recall": scores.correct.double().numpy(),
            "answer_probability": scores.mean_logprob.double().exp().numpy(),
            "answer_logprob": scores.logprob.double().numpy(),
            "rank": scores.rank.numpy(),
            "exact_memorisation": scores.memorised.numpy(),
            "extraction_strength": scores.extracted.numpy(),
        }
    form = {"template": template or facts.template, "batch_size": batch_size, "seed": seed}
    if "choice" in needed:
        kept = _with_distractors(facts, options - 1 if measures is None else 0)
        if kept:
            chosen = score_choices(model, [facts[row] for row in kept], options=options, letters=letters, **form)
            found["choice_accuracy"] = _spread(chosen.accuracy.numpy(), kept, len(facts))
            found["choice_probability"] = _spread(chosen.probability.numpy(), kept, len(facts))
    if "truth" in needed:
        kept = _with_distractors(facts, 1 if measures is None else 0)
        if kept:
            truth = score_truth(model, [facts[row] for row in kept], **form)._asdict()
            for mean, ratio in truth.items():
                found[f"truth_ratio_{mean}"] = _spread(closer_to_one(ratio).numpy(), kept, len(facts))
                found[f"true_better_{mean}"] = _spread(true_better(ratio).numpy(), kept, len(facts))
    if "generation" in needed:
        said = {"template": template, "max_new_tokens": max_new_tokens, "batch_size": batch_size, "progress": progress}
        now, then = (greedy_answers(_bridge(one), facts, **said) for one in (model, before))
        for name, alike in (("rouge_l", rouge_l), ("bleu", bleu)):
            found[name] = np.array([alike(*pair) for pair in zip(now, then, strict=True)])
    missing = np.full(len(facts), np.nan)
    return labels(facts).assign(**{name: found.get(name, missing) for name in wanted})


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
    columns = dict(_text_columns(model, text, before, [name for name in names if name in TEXT]))
    return pd.DataFrame(columns)


def _text_columns(
    model: LanguageModel, text: Sequence[str] | Tokens, before: LanguageModel | None, names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        if name == "text_loss":
            found = per_text_loss(model, text)
        else:
            assert before is not None  # chosen_measures saw to it
            found = per_text_kl(model, before, text)
        yield "tokens", found.tokens.numpy()
        yield name, (found.total / found.tokens).numpy()


def _bridge(model: LanguageModel | None) -> TransformerBridge:
    if not isinstance(model, TransformerBridge):
        raise UserError(f"rouge_l and bleu: models must be opened with load(); this is {type(model)}")
    return model


def _with_distractors(facts: Facts, least: int) -> list[int]:
    """The rows of facts that have so many different distractors."""
    return [row for row, fact in enumerate(facts) if len(wrong_answers(fact)) >= least]


def _spread(values: np.ndarray, rows: list[int], size: int) -> Float[np.ndarray, " fact"]:
    spread = np.full(size, np.nan)
    spread[rows] = values
    return spread
