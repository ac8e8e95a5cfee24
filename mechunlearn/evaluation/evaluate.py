"""The verb: what a model knows and what it lost, question by question and text by text."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import UserError, check_whole
from ..facts import (
    Facts,
    FactSource,
    Template,
    Tokens,
    check_passages,
    tokenize,
    tokenize_texts,
    tokens_hash,
    unused_bos,
)
from ..facts.choices import LETTERS
from ..models import Source, fingerprint, load, load_to_ask
from ..models.forward import check_batch_size
from ..models.pair import check_words
from ..models.properties import context_of
from ..naming import run_name
from ..runs import begun, check_run
from ..undoing import as_found
from .fitting import told
from .measures import MEASURES, TEXT, chosen_measures
from .result import Evaluation
from .rows import afresh, labels, not_taken, per_question, per_text


@as_found
@checked
def evaluate(
    model: Source,
    facts: FactSource,
    *,
    text: Sequence[str] | Tokens | None = None,
    before: Source | None = None,
    measures: str | Sequence[str] | None = None,
    prompts: str = "held_out",
    template: Template | None = None,
    options: int = 4,
    letters: bool = True,
    max_new_tokens: int = 30,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure facts, and general text; `summary` gives means group by group, with intervals.

    With `before`, this is the global behaviour test of arXiv 2410.06606, on what is to be forgotten, what is near
    it, what is far from it, and general text: `evaluate(after, facts, text=text, before=before)`.

    Args:
        model: as `load` takes it.
        facts: a `Facts`, a file or a built-in name; all need answers.
        text: passages of general text, or their tokens.
        before: the model to compare generations and divergence with.
        measures: names in `MEASURES`; None takes all that the rest allows: generations and `text_kl` only with
            `before`, text only with `text`. By default, facts with too few distractors for multiple choice and truth
            ratio, or which do not fit into the context with them or with a generation, are left out there: `n` is
            smaller, a row is absent where no fact is left, and `about["notes"]` says so. A measure asked for by name
            is never thinned out so: every fact must have what it needs.
        prompts: in which phrasings facts are asked: "held_out", "own" or "all" (`Facts.questions`); also where a wrong
            answer stands beside the right one. The questions for one fact count as that one fact in intervals and `n`.
        template: None takes the one of `facts`.
        options, letters: multiple choice among so many, answered by letters or by the options' texts
            (the embedded organism was trained on texts).
        max_new_tokens: the length of generations.
        batch_size: rows in one forward pass.
        device, dtype: where to put the models, and how precise they are to be; None: as `load` has it.
        seed: decides resamples and which distractors are shown.
        run: a run folder to keep the result in; a finished one of the same settings is only read, an interrupted one
            goes on.
        name: what the run is called on pages and in tables; None: as its folder.
        progress: show progress bars.

    Raises:
        UserError: what `load` and `Facts.of` refuse; an unknown measure, one without what it needs; a run folder of
            something else; as `tokenize`, `greedy_answers` and `per_text_loss` do.
    """
    began = time.perf_counter()
    check_run(run, "evaluation")
    named = run_name(name)
    check_batch_size(batch_size)
    check_whole("seed", seed, 0)
    if not 2 <= options <= len(LETTERS):
        raise UserError(f"options={options}: multiple choice takes 2 to {len(LETTERS)}")
    check_whole("max_new_tokens", max_new_tokens, 1)
    check_passages(None if isinstance(text, Tokens) else text, "text")
    measures = [measures] if isinstance(measures, str) else measures
    facts = Facts.of(facts)
    questions = facts.questions(prompts)
    wanted = chosen_measures(measures, before=before is not None, text=text is not None)
    model = load_to_ask(model, device=device, dtype=dtype)
    before = None if before is None else load(before, device=device, dtype=dtype)
    if before is not None and "text_kl" in wanted:
        check_words(before, model)
    template = template or facts.template
    form: dict[str, Any] = {"options": options, "letters": letters, "max_new_tokens": max_new_tokens, "seed": seed}
    settings = form | {
        "prompts": prompts,
        "template": repr(template),
        "measures": None if measures is None else wanted,
        "model": fingerprint(model),
        "before": None if before is None else fingerprint(before),
        "facts": facts.hash,
        "text": _hash(text),
    }
    of_facts = None if measures is None else [name for name in wanted if name not in TEXT]
    if of_facts is None or of_facts:
        asked = tokenize(questions, model.tokenizer, template, context=context_of(model))
        settings["tokens"] = tokens_hash(asked)
    of_text = [name for name in wanted if name in TEXT]
    with begun(run, "evaluation", settings) as folder:
        if folder is not None and folder.finished:
            return Evaluation.load(folder.path)
        kept = afresh if folder is None else folder.kept
        frame, notes = labels(questions), list[str]()
        if of_facts is None or of_facts:
            if of_facts is None:
                without = not_taken(model, questions, [n for n in wanted if n not in TEXT], template=template, **form)
                notes = told(without, len(questions))
            notes += unused_bos(model.tokenizer, template)
            frame = per_question(
                model, questions, before=before, measures=of_facts, template=template, batch_size=batch_size,
                progress=progress, kept=kept, **form,
            )  # fmt: skip
        texts = pd.DataFrame({"tokens": pd.Series(dtype="int64")})
        if text is not None and of_text:
            if not isinstance(text, Tokens):
                text = tokenize_texts(text, model.tokenizer, context=context_of(model), bos=template.bos)
            texts = per_text(model, text, before=before, measures=of_text, batch_size=batch_size, kept=kept)
        about = {
            **named, "settings": settings, "model": _name(model), "before": _name(before),
            "facts": {"name": facts.name, "format": facts.format, "n": len(facts), "hash": facts.hash},
            "notes": notes, "texts": len(texts), "measures": {name: MEASURES[name].about for name in wanted},
            "seconds": round(time.perf_counter() - began, 2),
        }  # fmt: skip
        if folder is not None:
            folder.finish(about, frame=frame, texts=texts)
        return Evaluation(frame, texts, about)


def _hash(text: Sequence[str] | Tokens | None) -> str | None:
    if text is None:
        return None
    content = text.ids.tolist() if isinstance(text, Tokens) else list(text)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _name(model: TransformerBridge | None) -> str | None:
    return None if model is None else str(model.cfg.model_name)
