"""Unlearning runs on the page: what was forgotten, and what it cost elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...facts import PROMPTS
from ...unlearning.plot import plot
from ...unlearning.settings import kept_row
from ..elements import Figure, flat, spaced
from ..folders import UnlearningFiles

ROLES = {"forget": "of the facts to forget", "near": "of near facts", "far": "of far facts", "retain": "of kept facts"}

LARGEST_RISE, LEAST_KEPT = 0.03, 0.9  # of the loss on general text; of recall on facts to keep


@dataclass(frozen=True)
class UnlearningSection:
    """One unlearning run on the page."""

    name: str
    anchor: str
    headline: str
    warnings: tuple[str, ...]
    figures: list[Figure]
    ends: pd.DataFrame  # measure, at the start, at the end
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def unlearning_section(run: UnlearningFiles, anchor: str) -> UnlearningSection:
    """Everything the page says about one unlearning run."""
    about = run.run["about"]
    first, last = run.frame.iloc[0], kept_row(run.frame, about)
    return UnlearningSection(
        name=run.label,
        anchor=anchor,
        headline=_headline(first, last, about),
        warnings=tuple(_warnings(first, last, about)),
        figures=[Figure.of(plot(run.frame, about), run.label)],
        ends=_ends(first, last),
        settings=flat(
            (run.run.get("settings") or {})
            | {name: told for name, told in about.items() if name not in ("remaining", "weights", "name")}
        ),
        versions=flat(run.run.get("versions") or {}),
    )


def _headline(first: pd.Series, last: pd.Series, about: Mapping[str, Any]) -> str:
    """Recall and disruption, from the start to the model that was kept."""
    recalls = [
        f"{whose} from {first[column]:.1%} to {last[column]:.1%}"
        for role, whose in ROLES.items()
        if (column := f"{role}_recall") in last.index and not pd.isna(last[column])
    ]
    asked = PROMPTS[about["settings"]["prompts"]]
    if "forget_token_recall" in last.index:
        tokens, likely = (f"forget_{name}" for name in ("token_recall", "probability"))
        recalls[0] += (
            f" (long answers, of which recall asks for every token: an answer token's probability went from "
            f"{first[likely]:.2f} to {last[likely]:.2f}, tokens right from {first[tokens]:.1%} to {last[tokens]:.1%})"
        )
    return f"Recall {', '.join(recalls)}, {asked}. {' '.join(_cost(first, last))} It ended because: {about['stopped']}."


def _cost(first: pd.Series, last: pd.Series) -> Iterator[str]:
    told = []
    if "text_kl" in last.index:
        told.append(f"the predictions moved by a KL of {last['text_kl']:.4f} nats a token")
    if "text_loss" in last.index:
        told.append(f"the loss by {last['text_loss'] / first['text_loss'] - 1:+.2%}")
    yield f"On general text {' and '.join(told)}." if told else "What it cost on general text was not measured."


def _warnings(first: pd.Series, last: pd.Series, about: Mapping[str, Any]) -> Iterator[str]:
    if "remaining" in about:
        yield f"{about['remaining'][:1].upper()}{about['remaining'][1:]}."
    if "text_loss" in last.index and (rise := last["text_loss"] / first["text_loss"] - 1) > LARGEST_RISE:
        yield (
            f"The loss on general text rose by {rise:.1%}; papers that compare methods allow {LARGEST_RISE:.0%} "
            "(arXiv 2509.11816). A model that has lost its language may only look as if it had forgotten."
        )
    for role in ("near", "far", "retain"):
        column = f"{role}_recall"
        if column in last.index and last[column] < LEAST_KEPT * first[column]:
            yield f"Recall {ROLES[role]} fell below {LEAST_KEPT:.0%} of what it was: the unlearning was not specific."


def _ends(first: pd.Series, last: pd.Series) -> pd.DataFrame:
    columns = [str(name) for name in last.index if str(name).endswith(("_recall", "_probability"))]
    columns += [name for name in ("text_loss", "text_kl") if name in last.index]
    rows = [(spaced(name), _measured(name, first[name]), _measured(name, last[name])) for name in columns]
    return pd.DataFrame(rows, columns=["", "at the start", "at the end"])


def _measured(name: str, value: float) -> str:
    return f"{value:.1%}" if name.endswith("_recall") else f"{value:.3f}"
