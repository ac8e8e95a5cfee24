"""After wrapping, a model still says what it said before: a few logits of either are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UserError
from ..undoing import unhooked

TOKENS = 8
# How far wrapping may move logits, as a multiple of what rounding does to them (`Few.noise`). Over the architectures
# of analyses/conformance_models.py, in float32, bfloat16 and float16, those that agree stayed under 1.6; the one that
# wrapping spoils (GPT-1) is off by 1.4 million, and by 62 in bfloat16.
ALLOWED = 8


@dataclass(frozen=True)
class Few:
    """What a model says to a few tokens, and how far rounding moves that.

    `noise` is the largest change of a logit when every number that enters the first block is rounded once more, at
    random, and at least the precision of the largest logit.
    """

    logits: Float[Tensor, "pos vocab"]
    noise: float


@torch.no_grad()
def few_logits(module: PreTrainedModel) -> Few:
    """The logits of a few tokens from all over the vocabulary, one row without a cache; two passes."""
    plain = _said(module)
    step = torch.finfo(plain.dtype).eps
    draw = torch.Generator().manual_seed(0)

    def rounded(_: nn.Module, __: object, output: Tensor) -> Tensor:
        up = torch.rand(output.shape, generator=draw).to(output.device)
        return (output * (1 + step * (up - 0.5))).to(output.dtype)

    embedding = cast(nn.Module, module.get_input_embeddings())
    with unhooked([embedding]):
        embedding.register_forward_hook(rounded)
        moved = float((_said(module).double() - plain.double()).abs().max())
    return Few(plain, max(moved, step * float(plain.abs().max()), torch.finfo(plain.dtype).tiny))


def _said(module: PreTrainedModel) -> Float[Tensor, "pos vocab"]:
    place = next(module.parameters()).device
    size = int(module.config.get_text_config().vocab_size)
    ids = (torch.arange(1, TOKENS + 1, device=place) * 7919 % size)[None]
    return module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]


@torch.no_grad()
def check_wrapped(name: str, module: PreTrainedModel, before: Few) -> float:
    """The largest difference between the wrapped module's logits and those it gave before.

    Raises:
        UserError: more than rounding can be, or the wrapped module does not run.
    """
    kind, dtype = type(module).__name__, before.logits.dtype
    try:
        wrapped = _said(module)
    except Exception as error:
        hint = "" if dtype == torch.float32 else f" in {str(dtype).removeprefix('torch.')}; try float32"
        raise UserError(
            f"{name}: TransformerLens' wrapping of {kind} does not run ({type(error).__name__}: {error}); this "
            f"architecture is not supported{hint}"
        ) from error
    difference = float((wrapped.double() - before.logits.double()).abs().max())
    if not difference <= ALLOWED * before.noise:
        raise UserError(
            f"{name}: TransformerLens' wrapping of {kind} changes what the model says: a logit is off by "
            f"{difference:.3g}, where rounding moves it by {before.noise:.2g}; this architecture is not supported"
        )
    return difference
