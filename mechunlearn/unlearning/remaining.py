"""What a run left: forget facts that the model after still answers, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..models import slots
from .method import Method
from .settings import kept_row

LEAST = 0.01  # of recall and answer probability before, that must be gone, or nothing was forgotten
KNOWN = 0.05  # of recall or answer probability before: below both there was nothing to forget
LEFT = 0.2  # of what was answered before: what remains below is not spoken of


def remaining(
    frame: pd.DataFrame, about: Mapping[str, Any], method: Method, before: TransformerBridge, after: TransformerBridge
) -> str | None:
    """What the model after still answers of the forget facts, and what to try; None where little is left.

    More than a fifth of what was answered before is spoken of: of recall, or, of long answers, of the probability of
    an answer token. Where the model before hardly answers, that is what is said: its facts are others, or it is asked
    in another form than it knows. Where nothing at all was forgotten, how far the weights moved is said beside it: a
    setting that is a length or a rate suits one model, and may be lost on another.
    """
    first, last = frame.iloc[0], kept_row(frame, about)
    recall, probability = ((first[name], last[name]) for name in ("forget_recall", "forget_probability"))
    if max(recall[0], probability[0]) < KNOWN:
        return (
            f"there was nothing to forget: before, recall of the forget facts is {recall[0]:.1%} and the probability "
            f"of an answer token {probability[0]:.3g}. Try this: the form in which the model was taught (template, "
            "chat), or facts that it knows"
        )
    start, end = probability if "forget_token_recall" in frame else recall
    if not end > LEFT * start:
        return None
    told = (
        f"recall {recall[1]:.1%} (before {recall[0]:.1%}), probability of an answer token "
        f"{probability[1]:.3g} (before {probability[0]:.3g})"
    )
    fell = any(after < (1 - LEAST) * before for before, after in (recall, probability))
    if fell or not frame["inside"].all():
        return f"the forget facts are still answered: {told}. Try this: {_mend(frame, about, method)}"
    moved = relative_change(before, after)
    return (
        f"nothing was forgotten: {told}; the weights moved by {moved:.1g} of their length. "
        f"Try this: {_mend(frame, about, method)}"
    )


def _mend(frame: pd.DataFrame, about: Mapping[str, Any], method: Method) -> str:
    if "collapsed" in about["stopped"] or "not finite" in about["stopped"]:
        return "lower learning_rate, or set a budget, which turns back before the model breaks"
    if not frame["inside"].all():
        return "a larger budget, or what costs the rest less (retain='kl', a higher retain_weight or text_weight)"
    lower = ", or lower retain_weight" if method.retain_weight else ""
    return f"raise {method.stronger}{lower}"


@torch.no_grad()
def relative_change(before: TransformerBridge, after: TransformerBridge) -> float:
    """‖W' − W‖/‖W‖ over all parameters that the forward pass reads."""
    pairs = [(old.tensor, new.tensor) for old, new in zip(slots(before), slots(after), strict=True)]
    moved = math.fsum(float((new.to(old.device) - old).double().square().sum()) for old, new in pairs)
    return math.sqrt(moved / math.fsum(float(old.double().square().sum()) for old, _ in pairs))
