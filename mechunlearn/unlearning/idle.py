"""Runs that did nothing: a setting that is a length or a rate suits one model, and may be lost on another."""

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

LEAST = 0.01  # of recall and answer probability before, that must be gone


def forgot_nothing(
    frame: pd.DataFrame, about: Mapping[str, Any], method: Method, before: TransformerBridge, after: TransformerBridge
) -> str | None:
    """What a run that forgot nothing has to say for itself, and what to raise; None where something was forgotten.

    A run that was sent back by its budget, or that collapsed, has said why already.
    """
    first, last = frame.iloc[0], kept_row(frame, about)
    recall, probability = (pd.Series([first[name], last[name]]) for name in ("forget_recall", "forget_probability"))
    fell = any(bool(end < (1 - LEAST) * start) for start, end in (recall, probability))
    if fell or not frame["inside"].all() or "collapsed" in about["stopped"]:
        return None
    holding = ", or lower retain_weight" if method.retain_weight else ""
    moved = relative_change(before, after)
    return (
        f"nothing was forgotten: recall {recall[0]:.1%}, then {recall[1]:.1%}; probability of an answer token "
        f"{probability[0]:.3g}, then {probability[1]:.3g}; the weights moved by {moved:.1g} of their length. "
        f"Raise {method.stronger}{holding}"
    )


@torch.no_grad()
def relative_change(before: TransformerBridge, after: TransformerBridge) -> float:
    """‖W' − W‖/‖W‖ over all parameters that the forward pass reads."""
    pairs = [(old.tensor, new.tensor) for old, new in zip(slots(before), slots(after), strict=True)]
    moved = math.fsum(float((new.to(old.device) - old).double().square().sum()) for old, new in pairs)
    return math.sqrt(moved / math.fsum(float(old.double().square().sum()) for old, _ in pairs))
