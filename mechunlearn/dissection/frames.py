"""From measured arrays to the tidy frames that everybody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from ..facts import Facts, Tokens
from ..models import Comparison
from .metrics import MARGIN, METRICS
from .plan import Patch
from .sweep import Where
from .units import Pieces

RULES = {
    "all": "patched everywhere; scored where the logits predict the answer",
    "answer": "patched and scored where the logits predict the answer",
    "prompt": "patched before the first position that predicts the answer; scored where the logits predict it",
    "each": "patched at one position at a time; scored where the logits predict the answer",
    "paper": "patched everywhere; scored at the last n positions of each row, n = number of answer tokens, as the code "
    "of 2410.06606 does: it misses the prediction of the first answer token and counts one too many at the end",
}


def noise_floor(pieces: Pieces) -> dict[str, float]:
    """The denominator that a row needs to be defined: what lies below is not told apart from rounding."""
    return {metric: MARGIN[metric] * max(found.noise[metric] for _, found in pieces) for metric in METRICS}


def result_frame(
    chosen: list[Patch],
    pieces: Pieces,
    floor: dict[str, float],
    tokens: Tokens,
    direction: str,
    tokenizer: PreTrainedTokenizerBase | None,
) -> pd.DataFrame:
    """One row per patch × metric × fact, in the columns of `Dissection.frame`."""
    back, n_facts, names = _back(pieces), len(tokens), tokens.fact_ids
    measured, positions, words = _positions(chosen, tokens, tokenizer)
    sites, kinds = [patch.site.name for patch in chosen], [patch.site.kind for patch in chosen]
    shared = {
        "fact": np.tile(np.asarray(names, dtype=object), len(chosen)),
        "site": pd.Categorical(np.repeat(np.asarray(sites, dtype=object), n_facts), list(dict.fromkeys(sites))),
        "kind": pd.Categorical(np.repeat(np.asarray(kinds, dtype=object), n_facts), ["activation", "parameters"]),
        "direction": direction,
        "first_layer": np.repeat([patch.first for patch in chosen], n_facts),
        "last_layer": np.repeat([patch.last for patch in chosen], n_facts),
        "position": pd.array(positions, dtype="Int64"),
        "token": pd.array(words, dtype="string"),
    }
    parts = []
    for metric in METRICS:
        distance = np.concatenate([found.distances[metric] for _, found in pieces], axis=1)[:, back]
        baseline = np.concatenate([found.baseline[metric] for _, found in pieces])[back]
        parts.append(pd.DataFrame(shared | recovery_columns(metric, distance, baseline, floor[metric]))[measured])
    return pd.concat(parts, ignore_index=True)


def _positions(
    chosen: list[Patch], tokens: Tokens, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[np.ndarray, list[int | None], list[str | None]]:
    """For every patch × fact: is there such a position in the fact, which is it, and what token stands there?"""
    last = [int(row.nonzero().max()) for row in tokens.predicts]
    measured, positions, words = [], [], []
    for patch in chosen:
        for fact, end in enumerate(last):
            measured.append(patch.position is None or patch.position <= end)
            positions.append(patch.position)
            if patch.position is None or tokenizer is None or not measured[-1]:
                words.append(None)
            else:
                words.append(str(tokenizer.decode([int(tokens.ids[fact, patch.position])])))
    return np.asarray(measured), positions, words


def recovery_columns(metric: str, distance: np.ndarray, baseline: np.ndarray, floor: float) -> dict[str, Any]:
    """Distances "patch fact" and denominators "fact" as columns, patch after patch."""
    defined = baseline > floor
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = np.where(defined, 1 - distance / baseline, np.nan)
    return {
        "metric": pd.Categorical([metric] * distance.size, METRICS),
        "distance": distance.ravel(),
        "baseline": np.tile(baseline, len(distance)),
        "recovery": recovery.ravel(),
        "defined": np.tile(defined, len(distance)),
    }


def fact_table(facts: Facts, pieces: Pieces, direction: str, model: TransformerBridge) -> pd.DataFrame:
    """What either model says to each fact: the most probable token at each predicting position."""
    back = _back(pieces)
    names = ("before", "after") if direction == "before->after" else ("after", "before")
    table: dict[str, Any] = {
        "fact": [fact.id for fact in facts],
        "prompt": [fact.prompt for fact in facts],
        "answer": [fact.answer for fact in facts],
    }
    for name, which in zip(names, ("donor", "recipient"), strict=True):
        said = [tokens for _, found in pieces for tokens in found.said[which]]
        table[f"{name}_answer"] = [model.tokenizer.decode(said[row]).strip() for row in back]
        table[f"{name}_logprob"] = np.concatenate([found.logprob[which] for _, found in pieces])[back]
        right = [fact for _, found in pieces for fact in found.right[which]]
        table[f"{name}_correct"] = [right[row] for row in back]
    columns = [f"{name}_{what}" for what in ("answer", "logprob", "correct") for name in ("before", "after")]
    return pd.DataFrame(table)[["fact", "prompt", "answer", *columns]]


def answer_table(
    facts: Facts, chosen: list[Patch], pieces: Pieces, tokens: Tokens, direction: str, model: TransformerBridge
) -> pd.DataFrame:
    """What the recipient says to each fact under every patch, in the columns of `Dissection.answers`.

    Patches of single positions are left out: they are there to be seen on a map.
    """
    whole = [number for number, patch in enumerate(chosen) if patch.position is None]
    words: dict[tuple[int, ...], str] = {}
    said: list[list[str]] = [[] for _ in facts]
    right: list[list[bool]] = [[] for _ in facts]
    for rows, found in pieces:
        ends = np.cumsum([len(answer) for answer in found.said["donor"]])[:-1]
        for row, columns in zip(rows, np.split(found.patched[whole], ends, axis=1), strict=True):
            expected = tuple(tokens[[row]].targets.tolist())
            for answer in map(tuple, columns.tolist()):
                if answer not in words:
                    words[answer] = model.tokenizer.decode(list(answer)).strip()
                said[row].append(words[answer])
                right[row].append(answer == expected)
    return pd.DataFrame(
        {
            "fact": np.repeat(np.asarray(tokens.fact_ids, dtype=object), len(whole)),
            "site": pd.Categorical([chosen[number].site.name for number in whole] * len(facts)),
            "direction": pd.Categorical([direction] * (len(whole) * len(facts))),
            "first_layer": [chosen[number].first for number in whole] * len(facts),
            "last_layer": [chosen[number].last for number in whole] * len(facts),
            "answer": pd.Categorical([text for texts in said for text in texts]),
            "correct": [value for values in right for value in values],
        }
    )


def describe(comparison: Comparison) -> dict[str, Any]:
    """The comparison of the weights for people: counts, names, and relative change by role."""
    frame = comparison.frame
    by_role = frame.groupby("role")["relative_change"].agg(["mean", "max"])
    return {
        "tensors": len(frame),
        "differ": int(frame["differs"].sum()),
        "names": frame.loc[frame["differs"], "name"].tolist(),
        "relative_change": {str(role): {"mean": float(m), "max": float(x)} for role, m, x in by_role.itertuples()},
    }


def rule(positions: Where) -> str:
    """How positions were patched and scored, in words."""
    if isinstance(positions, str):
        return RULES[positions]
    return f"patched at positions {', '.join(map(str, positions))}; scored where the logits predict the answer"


def _back(pieces: Pieces) -> np.ndarray:
    """For each fact in its own order, where it stands among the measured rows."""
    return np.argsort(np.concatenate([np.asarray(rows) for rows, _ in pieces]))
