"""Weights in half precision, everything computed in single: the residual stream, norms, attention and scores.

In bfloat16 a number has eight bits, and every block rounds the residual stream again: squared differences of the logits
up to a thousandth of their mean square are then nobody's doing. The weights are what a user wants small. So while a
model is dissected its operations take their operands in float32, a matrix at a time, and the results are those of the
float32 model with the same (rounded) weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

HALF = (torch.bfloat16, torch.float16)
COMPUTES = {  # operations that take weights, and functions that make the first activations of them
    F.linear, F.embedding, F.layer_norm, F.rms_norm, F.conv1d, F.scaled_dot_product_attention,
    torch.addmm, torch.matmul, torch.mm, torch.bmm, torch.baddbmm, torch.einsum, torch.conv1d,
    Tensor.addmm, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.baddbmm,
}  # fmt: skip


class InSingle(TorchFunctionMode):
    """Gives operations that compute with weights their operands in float32, and lets nothing be rounded to less."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        change = _single if func in COMPUTES or _meet(func, args) else _wide
        return func(*map(change, args), **{name: change(value) for name, value in (kwargs or {}).items()})


def _meet(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether tensors of either precision meet in an operation that gives a new one (an expert's slice of weights)."""
    if getattr(func, "__name__", "_").endswith("_"):  # in place, or a property that is set
        return False
    kinds = {value.dtype for value in args if isinstance(value, Tensor)}
    return torch.float32 in kinds and not kinds.isdisjoint(HALF)


def _single(value: Any) -> Any:
    """Operands in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in HALF else value
    return type(value)(_single(part) for part in value) if isinstance(value, tuple | list) else _wide(value)


def _wide(value: Any) -> Any:
    """What is asked to be in half precision (`x.to(torch.bfloat16)`, a softmax's dtype) is in float32."""
    return torch.float32 if isinstance(value, torch.dtype) and value in HALF else value


@contextmanager
def in_single(*models: nn.Module) -> Iterator[None]:
    """Inside, models whose weights are in half precision compute in float32; others as ever."""
    if any(parameter.dtype in HALF for model in models for parameter in model.parameters()):
        with InSingle():
            yield
    else:
        yield
