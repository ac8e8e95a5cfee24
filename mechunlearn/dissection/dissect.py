"""The main verb: patch and restore between the model before and after, and measure what comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import UserError, check_whole
from ..evaluation import greedy_answers
from ..facts import Facts, FactSource, Template, tokenize, tokens_hash, unused_bos
from ..models import Source, compare, fingerprint, load, load_to_ask, matched
from ..models.forward import check_batch_size, check_replay
from ..models.precision import in_single
from ..models.properties import context_of
from ..naming import apart, run_name
from ..runs import begun, check_run, versions
from ..sites import default, resolve
from ..undoing import as_found
from .controls import measure_controls
from .frames import MODELS, Measured
from .metrics import METRICS
from .patches import patches, places
from .positions import Where, chosen as checked_positions, placed, reached, rule
from .result import Dissection
from .sweep import Sweep
from .windows import Windows, families

QUESTION = "Was the knowledge removed, or only made unreachable, and where?"
CONTROL_FACTS = 8
MAX_TOKENS, MAX_TOKENS_ACCELERATED = 8192, 65536  # of patched rows in one pass: on the CPU, elsewhere


@as_found
@checked
def dissect(
    before: Source,
    after: Source,
    facts: FactSource,
    *,
    sites: str | Sequence[str] | None = None,
    windows: Windows = None,
    direction: str = "before->after",
    positions: Where = "all",
    prompts: str = "held_out",
    template: Template | None = None,
    tokenizer: str = "before",
    batch_size: int = 64,
    max_tokens: int | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Dissection:
    """Measure which sites, in which layers, give the knowledge back (arXiv 2410.06606).

    Args:
        before, after: anything that `load` takes.
        facts: what to ask. Of a file or a built-in name whose facts have roles, those to forget. Facts without an
            answer get the one that `before` gives greedily (at most 30 tokens), as in the paper; those to which it
            says nothing are left out, counted and named in the result.
        sites: names of sites (`mechunlearn.sites`), whole, or some of their places ("head_output[0,3]", by layer
            "head_output[2:0,4:1-3]"), activations joined with +; None: the eight of the paper's picture, those of
            experts where the model has some (`sites.default`).
        windows: families of windows; default: `sliding(5)`, the paper's, and all layers at once.
        direction: "before->after" puts values of `before` into `after`; "after->before" injects the damage.
        positions: where activations are patched: "all"; "answer" (where the logits predict the answer); "prompt"
            (before these); "prompt_last" (what predicts the first answer token); "answer_first" (that token itself);
            "subject", "subject_last" (all tokens of the fact's subject, or the last, where the prompt mentions it last:
            `facts.mark_subjects`); a list of token positions within each fact (0 its first token, -1 the last that
            predicts its answer); "each" (a patch for every single position: with `windows="single"` a layer × position
            map); or "paper" (all, but scored as the paper's code does; `facts.paper_positions`). Facts that have no
            such token are left out, and those for whom a patch there reaches nothing ("answer_first" of answers of
            one token); the result counts them.
        prompts: the phrasings that facts are asked in: "held_out", "own" or "all" (`Facts.questions`).
        template: how a fact becomes text; default: the facts' own.
        tokenizer: whose tokenizer makes tokens of the questions, for both models; matters where the two differ.
        batch_size: questions that are measured together.
        max_tokens: most tokens in one pass of patched rows; lower it where memory is short.
        device, dtype: as in `load`; None leaves the models as they are given. Over weights in half precision all is
            computed in float32 (`models.precision`), so that the noise is that of float32.
        seed: of the facts drawn for the controls, and of the bootstrap.
        run: folder for the finished pieces. The same call on it goes on where it was interrupted, and ends with the
            same frame.
        name: what the run is called on pages and in tables; None: as its folder.
        progress: show a bar.

    Raises:
        UserError: the models do not match, the facts cannot be tokenised, a site or window does not exist, or `run`
            holds a run of other settings.
    """
    began = time.perf_counter()
    check_run(run, "dissection")
    check_batch_size(batch_size)
    check_whole("seed", seed, 0)
    if max_tokens is not None:
        check_whole("max_tokens", max_tokens, 1)
    if direction not in MODELS:
        raise UserError(f"direction {direction!r}: not one of {', '.join(MODELS)}")
    where, called = checked_positions(positions), run_name(name)
    before = load_to_ask(before, device=device, dtype=dtype)
    after = load(after, device=device, dtype=dtype)
    comparison = compare(before, after)
    notes = list(comparison.notes)
    before, after = matched(before, after)
    if tokenizer not in ("before", "after"):
        raise UserError(f"tokenizer {tokenizer!r}: whose is to be used, before or after?")
    if tokenizer == "after":
        before = load(before, tokenizer=load_to_ask(after).tokenizer)
    facts = Facts.of(facts, role="forget")
    questions = facts.questions(prompts)
    if any(fact.answer is None for fact in questions):
        questions, silent = _answered(before, questions, template, batch_size, progress)
        notes += silent
    notes += unused_bos(before.tokenizer, template or questions.template)
    tokens = tokenize(questions, before.tokenizer, template, context=context_of(before))
    tokens = placed(tokens, where, questions, before.tokenizer, template)

    donor, recipient = (before, after) if direction == "before->after" else (after, before)
    wanted = default(recipient) if sites is None else [sites] if isinstance(sites, str) else sites
    named = list(dict.fromkeys(wanted))
    resolved = [resolve(name, recipient) for name in named]
    listed, n_layers = families(windows), recipient.cfg.n_layers
    chosen = patches(resolved, listed, n_layers, places(where, resolved, tokens))
    if not chosen:
        raise UserError(f"nothing to patch: no window of {', '.join(f.name for f in listed)} holds a given site")
    has = reached(where, tokens)
    notes += [] if where in ("all", "each") else [rule(where, has)]
    at = next(recipient.parameters()).device
    budget = max_tokens or (MAX_TOKENS if at.type == "cpu" else MAX_TOKENS_ACCELERATED)
    sweep = Sweep(donor, recipient, chosen, comparison.different, where, budget)

    settings = {
        "before": fingerprint(before), "after": fingerprint(after), "facts": facts.hash, "prompts": prompts,
        "template": repr(template or questions.template), "tokens": tokens_hash(tokens), "tokenizer": tokenizer,
        "sites": named, "metrics": list(METRICS), "windows": [family.name for family in listed], "direction": direction,
        "positions": where, "seed": seed,
        "dtype": str(next(before.parameters()).dtype).removeprefix("torch."),
        "batch_size": batch_size, "max_tokens": budget,
    }  # fmt: skip
    with begun(run, "dissection", settings) as folder:
        if folder is not None and folder.finished:
            return Dissection.load(folder.path)
        order = np.random.default_rng(seed).permutation(len(tokens))
        drawn = sorted(order[has.numpy()[order]][:CONTROL_FACTS].tolist())
        with in_single(before, after):
            for model in (before, after):
                check_replay(model, tokens.to(at))
            units = sweep.units(tokens, batch_size, folder, progress)
            measured = Measured(units, chosen, questions, tokens, has.numpy(), direction, before.tokenizer)
            controls = measure_controls(sweep, tokens[drawn].trim().to(at), measured.noise_floor)
        frame = measured.recovery()
        notes += _undefined(frame, settings["dtype"])
        constant = {
            **apart({"before": str(before.cfg.model_name), "after": str(after.cfg.model_name)}), "seed": seed,
            "dtype": settings["dtype"],
        }  # fmt: skip
        result = Dissection(
            frame=frame.assign(**constant),
            controls=controls,
            facts=measured.facts(),
            answers=measured.answers(),
            about={
                **called, "question": QUESTION, **constant, "direction": direction, "prompts": prompts,
                "facts": {"name": facts.name, "format": facts.format, "n": len(facts), "hash": facts.hash,
                          "template": settings["template"]},
                "notes": notes, "comparison": comparison.about, "noise_floor": measured.noise_floor,
                "settings": settings, "versions": versions(),
                "windows": {family.name: [list(window) for window in family(n_layers)] for family in listed},
                "n_layers": n_layers, "positions": where, "positions_rule": rule(where, has),
                "device": str(at), "seconds": round(time.perf_counter() - began, 2),
            },
        )  # fmt: skip
        if folder is not None:
            folder.finish(result.about, **result.frames)
        return result


def _undefined(frame: pd.DataFrame, dtype: str) -> list[str]:
    """A word about facts without a recovery, and about the precision that decides which these are."""
    per_metric = frame[~frame["defined"]].groupby("metric", observed=True)["fact"].nunique()
    if per_metric.empty:
        return []
    words = "float32" if dtype in ("float32", "float64") else f"float32 over {dtype} weights"
    return [
        f"by {per_metric.idxmax()} {per_metric.max()} of {frame['fact'].nunique()} facts are undefined: there the "
        f"models differ by less than the noise floor of what is computed in {dtype if dtype == 'float64' else words}"
    ]


def _answered(
    before: TransformerBridge, questions: Facts, template: Template | None, batch_size: int, progress: bool
) -> tuple[Facts, list[str]]:
    """The questions with an answer, theirs or what `before` says, and a word about those it says nothing to."""
    lacking = [fact for fact in questions if fact.answer is None]
    asked = questions.with_items(lacking)
    said = greedy_answers(before, asked, template, batch_size=batch_size, progress=progress)
    given = {fact.id: answer for fact, answer in zip(lacking, said, strict=True) if answer}
    kept = [fact if fact.answer is not None else replace(fact, answer=given[fact.id])
            for fact in questions if fact.answer is not None or fact.id in given]  # fmt: skip
    if not kept:
        raise UserError(
            f"the model before says nothing to any of the {len(lacking)} questions, which have no answers of their own "
            "(it ends the text at once); give them answers, or ask in another form (template=)"
        )
    silent = len(questions) - len(kept)
    notes = [f"{silent} of {len(questions)} questions are left out, to which the model before says nothing"]
    return questions.with_items(kept), notes if silent else []
