"""What a model brings along beside its weights: where it is, what it takes, and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import UserError

LanguageModel = Callable[..., Any]
"""A TransformerBridge, a model of transformers, or anything that is called like one and gives logits."""


def device_of(model: LanguageModel) -> torch.device:
    """Where the model's parameters are; the CPU for a callable without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return first.device if first is not None else torch.device("cpu")


def tokenizer_of(model: LanguageModel) -> Any:
    """The tokenizer that the model carries.

    Raises:
        UserError: it carries none.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise UserError("the model has no tokenizer, so it cannot be asked; save it with one, or load(…, tokenizer=…)")
    return tokenizer


def vocabulary_of(model: LanguageModel) -> int | None:
    """How many tokens the model knows, where its configuration says so."""
    for holder, name in (("cfg", "d_vocab"), ("config", "vocab_size")):
        size = getattr(getattr(model, holder, None), name, None)
        if size:
            return int(size)
    return None


def context_of(model: LanguageModel) -> int | None:
    """The most tokens that the model takes, where its configuration says so."""
    for holder, name in (("cfg", "n_ctx"), ("config", "max_position_embeddings")):
        length = getattr(getattr(model, holder, None), name, None)
        if length:
            return int(length)
    return None
