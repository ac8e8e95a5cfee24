"""The main verb: patch and restore between the model before and after, and measure what comes back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..evaluation import greedy_answers
from ..facts import Facts, Template, Tokens, tokenize
from ..models import compare, fingerprint, load
from ..models.forward import check_replay
from ..runs import RunFolder, versions
from ..sites import DEFAULT, Site, resolve
from .controls import measure_controls
from .frames import answer_table, describe, fact_table, noise_floor, result_frame, rule
from .plan import patches
from .result import Dissection
from .sweep import Sweep, Where
from .units import measure
from .windows import Family, Window, families

DIRECTIONS = ("before->after", "after->before")
QUESTION = "Was the knowledge removed, or only made unreachable, and where?"
CONTROL_FACTS = 8

Model = str | Path | nn.Module


def dissect(
    before: Model,
    after: Model,
    facts: Facts | str | Path,
    sites: Sequence[str] = DEFAULT,
    windows: Family | str | Iterable[Family | str | Window] | None = None,
    *,
    direction: str = "before->after",
    positions: Where = "all",
    template: Template | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
    max_tokens: int | None = None,
    progress: bool = True,
) -> Dissection:
    """Measure which sites, in which layers, give the knowledge back (arXiv 2410.06606).

    Args:
        before, after: anything that `load` takes.
        facts: what to ask; a file or built-in name is read. Facts without an answer get the one that `before` gives
            greedily (at most 30 tokens), as in the paper.
        sites: names of sites (`mechunlearn.sites`).
        windows: families of windows; default: `sliding(5)`, the paper's, and all layers at once.
        direction: "before->after" puts values of `before` into `after`; "after->before" injects the damage.
        positions: where activations are patched: "all", "answer" (where the logits predict the answer), "prompt", a
            list of token positions, "each" (a patch for every single position: with `windows="single"` a layer ×
            position map), or "paper" (all, but scored as the paper's code does; see `facts.paper_positions`).
        template: how a fact becomes text; default: the facts' own.
        seed: of the facts drawn for the controls, and of the bootstrap.
        run: folder for the finished pieces. The same call on it goes on where it was interrupted, and ends with the
            same frame.
        device, dtype: for models that have to be loaded.
        max_tokens: most tokens in one batch of patched rows; lower it where memory is short.
        progress: show a bar.

    Raises:
        UserError: the models do not match, the facts cannot be tokenised, a site or window does not exist, or `run`
            holds a run of other settings.
    """
    began = time.perf_counter()
    if direction not in DIRECTIONS:
        raise UserError(f"direction {direction!r}: not one of {', '.join(DIRECTIONS)}")
    before, after = (load(model, device=device, dtype=dtype) for model in (before, after))
    comparison = compare(before, after)
    facts = facts if isinstance(facts, Facts) else Facts.read(facts)
    if before.tokenizer is None:
        raise UserError("the model before has no tokenizer; save it with one, or pass tokenizer= to load")
    if any(fact.answer is None for fact in facts):
        facts = facts.with_answers(greedy_answers(before, facts, template))
    tokens = tokenize(facts, before.tokenizer, template, context=before.cfg.n_ctx)

    donor, recipient = (before, after) if direction == "before->after" else (after, before)
    chosen_windows = families(windows)
    resolved = [resolve(name, recipient) for name in dict.fromkeys(sites)]
    chosen = patches(resolved, chosen_windows, recipient.cfg.n_layers, _places(positions, resolved, tokens))
    if not chosen:
        named = ", ".join(family.name for family in chosen_windows)
        raise UserError(f"nothing to patch: no window of {named} holds a given site")
    where = positions if isinstance(positions, str) else [int(place) for place in positions]
    budget = max_tokens or (8192 if before.cfg.device == "cpu" else 65536)
    sweep = Sweep(donor, recipient, chosen, comparison.different, where, budget)

    settings = {
        "before": fingerprint(before), "after": fingerprint(after), "facts": facts.hash,
        "template": repr(template or facts.template), "sites": list(dict.fromkeys(sites)),
        "windows": [family.name for family in chosen_windows], "direction": direction, "positions": where,
        "seed": seed, "dtype": str(next(before.parameters()).dtype).removeprefix("torch."), "max_tokens": budget,
    }  # fmt: skip
    folder = RunFolder(run, "dissection", settings) if run is not None else None
    if folder is not None and folder.finished:
        return Dissection.load(folder.path)

    check_replay(before, tokens.to(_device(before)))
    check_replay(after, tokens.to(_device(after)))
    measured = measure(sweep, tokens, folder, progress)
    floor = noise_floor(measured)
    drawn = sorted(np.random.default_rng(seed).permutation(len(tokens))[:CONTROL_FACTS].tolist())
    some = tokens[drawn].trim().to(_device(recipient))
    constant = {"before": _name(before), "after": _name(after), "seed": seed, "dtype": settings["dtype"]}
    about = {
        "question": QUESTION, "before": constant["before"], "after": constant["after"], "direction": direction,
        "facts": {"name": facts.name, "format": facts.format, "n": len(facts), "hash": facts.hash,
                  "template": settings["template"]},
        "comparison": describe(comparison), "noise_floor": floor, "settings": settings, "versions": versions(),
        "windows": {family.name: family(recipient.cfg.n_layers) for family in chosen_windows},
        "n_layers": recipient.cfg.n_layers, "positions": where, "positions_rule": rule(where), "seed": seed,
        "dtype": settings["dtype"], "device": str(_device(recipient)),
        "seconds": round(time.perf_counter() - began, 2),
    }  # fmt: skip
    result = Dissection(
        frame=result_frame(chosen, measured, floor, tokens, direction, before.tokenizer).assign(**constant),
        controls=measure_controls(sweep, some, floor),
        facts=fact_table(facts, measured, direction, before),
        answers=answer_table(facts, chosen, measured, tokens, direction, before),
        about=about,
    )
    if folder is not None:
        folder.finish(about, frame=result.frame, controls=result.controls, facts=result.facts, answers=result.answers)
    return result


def _places(positions: Where, sites: list[Site], tokens: Tokens) -> Iterable[int | None]:
    """The token positions that get a patch of their own; (None,) where a patch covers many."""
    if positions != "each":
        return (None,)
    fixed = [site.name for site in sites if site.kind == "parameters"]
    if fixed:
        raise UserError(f"site {fixed[0]!r}: parameters have no positions; with positions='each' give activation sites")
    return range(int(tokens.predicts.any(0).nonzero().max()) + 1)


def _device(model: TransformerBridge) -> torch.device:
    return next(model.parameters()).device


def _name(model: TransformerBridge) -> str:
    return str(model.cfg.model_name)
