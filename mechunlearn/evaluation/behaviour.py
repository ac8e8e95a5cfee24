"""One table of what a model knows and what it lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import UserError
from ..facts import Fact, Facts, Template, Tokens, tokenize
from .answers import score_answers
from .disruption import PerText, per_text_kl, per_text_loss
from .forward import Model, context_of, tokenizer_of
from .intervals import bootstrap_interval


def behaviour(
    model: Model,
    facts: Facts,
    text: Sequence[str] | Tokens | None = None,
    reference: Model | None = None,
    *,
    by: Sequence[str] = ("role",),
    template: Template | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure facts group by group, and general text, with 95 % bootstrap intervals over facts or texts.

    Args:
        model: what `load` gives (it carries its tokenizer).
        facts: all need answers; pass `facts.held_out` for prompts that were not trained.
        text: passages of general text, or their tokens.
        reference: the model to take the divergence on `text` from, usually the one before unlearning.
        by: fields of `Fact` that make the groups, e.g. ("role", "domain").
        template: None takes the one of `facts`.

    Returns:
        One row a group and measure: the columns of `by`, then `measure`, `value`, `low`, `high`, `n`.
        Measures: `recall` (share of facts), `answer_logprob` (nats, whole answer), `answer_probability`
        (geometric mean over its tokens, as in TOFU, arXiv 2401.06121), and on general text, where the first
        column says "text", `text_loss` and `text_kl` (nats per token). Facts without a
        value in `by` are in the group "all".

    Raises:
        UserError: unknown field in `by`; a reference without text; as `tokenize` and `per_text_loss` do.
    """
    unknown = [field for field in by if field not in Fact.__dataclass_fields__]
    if unknown or not by:
        raise UserError(f"facts cannot be grouped by {unknown or 'nothing'}; name fields of Fact")
    if reference is not None and text is None:
        raise UserError("a reference is only of use with general text; give both")
    tokens = tokenize(facts, tokenizer_of(model), template, context=context_of(model))
    scores = score_answers(model, tokens, batch_size)
    measured = pd.DataFrame(
        {
            **{field: ["all" if getattr(f, field) is None else getattr(f, field) for f in facts] for field in by},
            "recall": scores.correct.double().numpy(),
            "answer_probability": scores.mean_logprob.double().exp().numpy(),
            "answer_logprob": scores.logprob.double().numpy(),
        }
    )
    rows = []
    for group, part in measured.groupby(list(by), sort=False):
        for measure in ("recall", "answer_probability", "answer_logprob"):
            values = part[measure].to_numpy()
            rows.append([*group, measure, values.mean(), *bootstrap_interval(values, seed=seed), len(part)])
    if text is not None:
        label = ["text", *[None] * (len(by) - 1)]
        rows.append([*label, "text_loss", *_text_row(per_text_loss(model, text), seed)])
        if reference is not None:
            rows.append([*label, "text_kl", *_text_row(per_text_kl(model, reference, text), seed)])
    return pd.DataFrame(rows, columns=[*by, "measure", "value", "low", "high", "n"])


def _text_row(found: PerText, seed: int) -> tuple[float, float, float, int]:
    total, count = np.asarray(found.total), np.asarray(found.tokens)
    return found.mean, *bootstrap_interval(total, count, seed=seed), len(count)
