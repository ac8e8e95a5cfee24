"""What a model knows and what it lost: fact by fact, text by text, and as one table."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Facts, Template, Tokens, tokenize, wrong_answers
from ..models import fingerprint
from ..runs import RunFolder, read_frame
from .answers import score_answers
from .choosing import score_choices
from .disruption import per_text_kl, per_text_loss
from .forward import Model, context_of, tokenizer_of
from .generation import greedy_answers
from .measures import MEASURES, TEXT, chosen_measures
from .overlap import bleu, rouge_l
from .tables import LABELS, check_groups, summarise_measures
from .truth import closer_to_one, score_truth, true_better


def evaluate(
    model: Model,
    facts: Facts,
    text: Sequence[str] | Tokens | None = None,
    *,
    before: Model | None = None,
    measures: Sequence[str] | None = None,
    by: Sequence[str] = ("role",),
    template: Template | None = None,
    options: int = 4,
    letters: bool = True,
    max_new_tokens: int = 30,
    batch_size: int = 32,
    seed: int = 0,
    run: str | Path | None = None,
) -> pd.DataFrame:
    """Measure facts group by group, and general text, with 95 % intervals over subjects, facts or texts.

    With `before`, this is the global behaviour test of arXiv 2410.06606, on what is to be forgotten, what is near
    it, what is far from it, and general text: `evaluate(after, facts.held_out, text, before=before)`.

    Args:
        model: what `load` gives (it carries its tokenizer).
        facts: all need answers; pass `facts.held_out` for prompts that were not trained. Its questions for one fact
            count as that one fact in `n`. Intervals resample subjects, where facts have them: see `summarise_measures`.
        text: passages of general text, or their tokens.
        before: the model to compare generations and divergence with.
        measures: names in `MEASURES`; None takes all that the rest allows: generations and `text_kl` only with
            `before`, text only with `text`. By default, facts with too few distractors are left out of multiple
            choice and truth ratio, so `n` is smaller there, and a row is absent where no fact is left. A measure
            asked for by name is never thinned out so: every fact must have what it needs.
        by: fields that make the groups: any of id, subject, relation, domain, fold, role. Facts without a value
            are in the group "all".
        template: None takes the one of `facts`.
        options, letters: multiple choice among so many, answered by letters or by the options' texts
            (the embedded organism was trained on texts).
        max_new_tokens: the length of generations.
        seed: decides resamples and which distractors are shown.
        run: a folder to keep the result in: this table (frame), what `per_fact` and `per_text` give (facts, texts).
            A finished one of the same settings is only read.

    Returns:
        One row a group and measure: the columns of `by` as text, then `measure`, `value` (a mean), `low`, `high`, `n`,
        `n_clusters` (subjects; a fact without one counts by itself). Rows of general text have "text" in the first
        column, None in further ones, and count texts.

    Raises:
        UserError: unknown measure or field; a measure without what it needs; a run folder of something else; as
            `tokenize`, `greedy_answers` and `per_text_loss` do.
    """
    began = time.perf_counter()
    check_groups(by)
    wanted = chosen_measures(measures, before=before is not None, text=text is not None)
    settings: dict[str, Any] = {"options": options, "letters": letters, "max_new_tokens": max_new_tokens, "seed": seed}
    template = template or facts.template
    known = None
    if run is not None:
        known = settings | _identity(model, before, facts, text) | {"template": repr(template), "by": list(by)}
        known |= {"measures": None if measures is None else wanted}
        if (Path(run) / "run.json").exists() and RunFolder(run, "evaluation", known).finished:
            return read_frame(Path(run) / "frame.parquet")
    found: dict[str, pd.DataFrame] = {}
    if measures is None or not set(wanted) <= set(TEXT):
        of_facts = measures if measures is None else [name for name in wanted if name not in TEXT]
        found["facts"] = per_fact(
            model, facts, before=before, measures=of_facts, template=template, batch_size=batch_size, **settings
        )
    if text is not None and set(wanted) & set(TEXT):
        of_text = [name for name in wanted if name in TEXT]
        found["texts"] = per_text(model, text, before=before, measures=of_text)
    table = summarise_measures(found.get("facts"), found.get("texts"), by=by, seed=seed)
    if run is not None and known is not None:
        about = {
            "model": _name(model), "before": _name(before), "by": list(by), "seed": seed,
            "facts": {"name": facts.name, "format": facts.format, "n": len(facts), "hash": facts.hash},
            "texts": len(found.get("texts", ())), "measures": {name: MEASURES[name]._asdict() for name in wanted},
            "seconds": round(time.perf_counter() - began, 2),
        }  # fmt: skip
        RunFolder(run, "evaluation", known).finish(about, frame=table, **found)
    return table


def per_fact(
    model: Model,
    facts: Facts,
    *,
    before: Model | None = None,
    measures: Sequence[str] | None = None,
    template: Template | None = None,
    options: int = 4,
    letters: bool = True,
    max_new_tokens: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """The measures of every fact, in the facts' order. Arguments are those of `evaluate`.

    Returns:
        One row a fact: id, subject, relation, domain, fold, role, then one column a measure; NaN where a fact has
        too few distractors (only where `measures` is None).

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
        now, then = (_said(one, facts, template, max_new_tokens, batch_size) for one in (model, before))
        for name, alike in (("rouge_l", rouge_l), ("bleu", bleu)):
            found[name] = np.array([alike(*pair) for pair in zip(now, then, strict=True)])
    labels = {
        # A nullable integer, so that folds beside missing ones do not come back from a file as 1.0.
        field: pd.Series([getattr(fact, field) for fact in facts], dtype="Int64" if field == "fold" else object)
        for field in LABELS
    }
    missing = np.full(len(facts), np.nan)
    return pd.DataFrame({**labels, **{name: found.get(name, missing) for name in wanted}})


def per_text(
    model: Model,
    text: Sequence[str] | Tokens,
    *,
    before: Model | None = None,
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
    model: Model, text: Sequence[str] | Tokens, before: Model | None, names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        if name == "text_loss":
            found = per_text_loss(model, text)
        else:
            assert before is not None  # chosen_measures saw to it
            found = per_text_kl(model, before, text)
        yield "tokens", found.tokens.numpy()
        yield name, (found.total / found.tokens).numpy()


def _said(
    model: Model | None, facts: Facts, template: Template | None, max_new_tokens: int, batch_size: int
) -> list[str]:
    bridge = _bridge(model, "rouge_l and bleu")
    return greedy_answers(bridge, facts, template, max_new_tokens=max_new_tokens, batch_size=batch_size)


def _bridge(model: Model | None, purpose: str) -> TransformerBridge:
    if not isinstance(model, TransformerBridge):
        raise UserError(f"{purpose}: models must be opened with load(); this is {type(model)}")
    return model


def _identity(
    model: Model, before: Model | None, facts: Facts, text: Sequence[str] | Tokens | None
) -> dict[str, str | None]:
    """What tells one evaluation from another, besides its settings."""
    content = text.ids.tolist() if isinstance(text, Tokens) else text
    return {
        "model": fingerprint(_bridge(model, "a run folder")),
        "before": None if before is None else fingerprint(_bridge(before, "a run folder")),
        "facts": facts.hash,
        "text": None if text is None else hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    }


def _name(model: Model | None) -> str | None:
    return str(model.cfg.model_name) if isinstance(model, TransformerBridge) else None


def _with_distractors(facts: Facts, least: int) -> list[int]:
    """The rows of facts that have so many different distractors."""
    return [row for row, fact in enumerate(facts) if len(wrong_answers(fact)) >= least]


def _spread(values: np.ndarray, rows: list[int], size: int) -> Float[np.ndarray, " fact"]:
    spread = np.full(size, np.nan)
    spread[rows] = values
    return spread
