"""Where in a fact's tokens activations are patched, and where its predictions are scored."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..facts import Facts, Template, Tokens, mark_subjects
from ..naming import meant

_SCORED = "scored where the logits predict the answer"
POSITIONS = {
    "all": f"patched everywhere; {_SCORED}",
    "answer": "patched and scored where the logits predict the answer",
    "answer_first": f"patched at the first answer token itself, from which those after it are predicted; {_SCORED}",
    "prompt": "patched before the first position that predicts the answer; scored where the logits predict it",
    "prompt_last": f"patched at the last position of the prompt, which predicts the first answer token; {_SCORED}",
    "subject": f"patched at every token of the fact's subject, where the prompt mentions it last; {_SCORED}",
    "subject_last": f"patched at the last token of the fact's subject, where the prompt mentions it last; {_SCORED}",
    "each": f"patched at one position at a time; {_SCORED}",
    "paper": "patched everywhere; scored at the last n positions of each row, n = number of answer tokens, as the code "
    "of 2410.06606 does: it misses the prediction of the first answer token and counts one too many at the end",
}
BY_SUBJECT = ("subject", "subject_last")
Where = str | Sequence[int]


def chosen(positions: Any) -> Where:
    """The positions as given, checked: a name, or at least one whole number.

    Raises:
        UserError: another name, no position, or one that is no whole number.
    """
    known = ", ".join(POSITIONS)
    if isinstance(positions, str):
        if positions not in POSITIONS:
            like = meant(positions, POSITIONS)
            raise UserError(f"positions {positions!r}: not one of {known}, nor a list of token positions{like}")
        return positions
    if isinstance(positions, int):
        raise UserError(f"positions={positions!r}: give a list, [{positions!r}], or one of {known}")
    found = list(positions)
    for place in found:
        if isinstance(place, bool) or not isinstance(place, Integral):
            raise UserError(f"positions: {place!r} is no whole number; give token positions like [0, 3, -1]")
    if not found:
        raise UserError(f"positions is empty, so nothing would be patched; give some, or one of {known}")
    return [int(place) for place in found]


def mask(positions: Where, tokens: Tokens) -> Bool[Tensor, "fact pos"] | None:
    """Where patches write that have no position of their own; None is everywhere.

    Positions count within each fact, whatever it is padded to: from 0, its first token, up; from -1 down, the last
    position that predicts its answer (of an answer of one token the last of the prompt; what follows reaches nothing).
    """
    if positions in ("all", "paper", "each"):
        return None
    ends = _ends(tokens)
    columns = torch.arange(tokens.ids.shape[1], device=ends.device)
    if isinstance(positions, str):
        return _named(positions, tokens) & (columns < ends[:, None])
    found = torch.zeros_like(tokens.predicts)
    for place in (int(place) for place in positions):
        at = ends + place if place < 0 else torch.full_like(ends, place)
        found |= (columns == at[:, None]) & (at < ends)[:, None]
    return found


def _named(positions: str, tokens: Tokens) -> Bool[Tensor, "fact pos"]:
    """Where positions said by meaning stand, whether or not anything that is scored follows.

    Raises:
        UserError: those of a subject, and nobody marked where it stands.
    """
    if positions in BY_SUBJECT and tokens.subjects is None:
        raise UserError(f"positions {positions!r}: these tokens do not say where subjects are (facts.mark_subjects)")
    marks = {
        "answer": tokens.predicts,
        "prompt": tokens.attention.bool() & ~tokens.predicts & ~tokens.answers,
        "prompt_last": _first(tokens.predicts),
        "answer_first": _first(tokens.answers),
    }
    if tokens.subjects is not None:
        marks |= {"subject": tokens.subjects, "subject_last": _first(tokens.subjects.flip(1)).flip(1)}
    return marks[positions]


def _first(marks: Bool[Tensor, "fact pos"]) -> Bool[Tensor, "fact pos"]:
    """The first of each row's marks alone."""
    return marks & (marks.cumsum(1) == 1)


def placed(
    tokens: Tokens, positions: Where, facts: Facts, tokenizer: PreTrainedTokenizerBase, template: Template | None
) -> Tokens:
    """The tokens with what these positions need to be found in them.

    Raises:
        UserError: positions of subjects, of which none can be found (`mark_subjects`).
    """
    try:
        return mark_subjects(tokens, facts, tokenizer, template) if positions in BY_SUBJECT else tokens
    except UserError as error:
        raise UserError(f"positions={positions!r}: {error}") from None


def reached(positions: Where, tokens: Tokens) -> Bool[Tensor, " fact"]:
    """Which facts have any of the positions.

    Raises:
        UserError: one of them lies outside every fact, or no fact has any.
    """
    if not isinstance(positions, str):
        longest = int(_ends(tokens).max())
        for place in positions:
            if not -longest <= place < longest:
                raise UserError(
                    f"position {place} lies outside every fact: the longest has {longest} positions up to the last "
                    f"that predicts its answer, 0 to {longest - 1}, or -1 to {-longest} from there back"
                )
    where = mask(positions, tokens)
    has = torch.ones(len(tokens), dtype=torch.bool) if where is None else where.any(1).cpu()
    if not has.any():
        mend = "an answer of more than one token" if positions == "answer_first" else "a longer prompt"
        raise UserError(
            f"positions {positions!r}: no question has a token there that reaches what is scored, so nothing would be "
            f"patched; {mend} has"
        )
    return has


def rule(positions: Where, has: Bool[Tensor, " fact"]) -> str:
    """How positions were patched and scored, in words."""
    if isinstance(positions, str):
        words = POSITIONS[positions]
    else:
        words = f"patched at positions {', '.join(map(str, positions))}; {_SCORED}"
    lacking = int((~has).sum())
    return f"{words}; {lacking} of {len(has)} questions have none of them and are left out" if lacking else words


def _ends(tokens: Tokens) -> Int[Tensor, " fact"]:
    """How many positions each fact has, up to the last that predicts its answer."""
    return tokens.predicts.shape[1] - tokens.predicts.flip(1).int().argmax(1)
