"""Running a model for measurement only: one way to get logits, nothing left behind in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import NotFiniteError, UserError

Model = Callable[..., Any]
"""Called as `model(ids, attention_mask=mask)`; gives logits, or an output of transformers that has them."""


def logits_of(
    model: Model, ids: Int[Tensor, "batch pos"], attention: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos vocab"]:
    """The logits of a TransformerBridge, of a model of transformers, or of any callable like them."""
    device = device_of(model)
    output = model(ids.to(device), attention_mask=attention.to(device))
    return output if isinstance(output, Tensor) else output.logits


def device_of(model: Model) -> torch.device:
    """Where the model's parameters are; the CPU for a callable without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return first.device if first is not None else torch.device("cpu")


def tokenizer_of(model: Model) -> Any:
    """The tokenizer that the model carries.

    Raises:
        UserError: it carries none.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise UserError("this model carries no tokenizer; open it with load(), or tokenise before measuring")
    return tokenizer


def context_of(model: Model) -> int | None:
    """The most tokens that the model takes, where its configuration says so."""
    for holder, name in (("cfg", "n_ctx"), ("config", "max_position_embeddings")):
        length = getattr(getattr(model, holder, None), name, None)
        if length:
            return int(length)
    return None


@contextmanager
def measuring(*models: Model | None) -> Iterator[None]:
    """No gradients and no dropout inside; every module's training flag is as before afterwards."""
    modules = [part for model in models if isinstance(model, nn.Module) for part in model.modules()]
    flags = [part.training for part in modules]
    try:
        for part in modules:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, flag in zip(modules, flags, strict=True):
            part.training = flag


def log_probs(logits: Float[Tensor, "scored vocab"]) -> Float[Tensor, "scored vocab"]:
    """Log-probabilities in at least single precision.

    Raises:
        NotFiniteError: a logit is not a number.
    """
    if logits.isnan().any():
        raise NotFiniteError("the model gives logits that are not numbers (NaN); check its weights")
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
