"""Linear maps whose weight gradient is made of changed inputs and output gradients.

The gradient of a weight is a sum of outer products over tokens, ΔW = Σ g aᵀ. A tap sees both factors in the backward
pass, token by token, shows them to whoever gathers statistics, and lets them be changed before they are multiplied.
The gradient that flows on to lower layers is the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge
from transformers.pytorch_utils import Conv1D

from ...errors import UserError
from ...models import hf
from ...undoing import undone

ROUNDING = 10  # in units of the last digit of the factors

Watch = Callable[[Float[Tensor, "token d_in"], Float[Tensor, "token d_out"]], None]
Change = Callable[[Float[Tensor, "token width"]], Float[Tensor, "token width"]]


@dataclass
class Tap:
    """What happens to one linear map's gradient. All is off until it is set.

    Attributes:
        weight: of the map, [out in], or [in out] where `transposed` (GPT-2's Conv1D).
        inputs, outputs: how input vectors and output gradients are changed.
        watch: sees the unchanged input vectors and output gradients of the valid tokens.
    """

    name: str
    weight: nn.Parameter
    transposed: bool
    inputs: Change | None = None
    outputs: Change | None = None
    watch: Watch | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Of inputs and outputs."""
        first, second = self.weight.shape
        return (first, second) if self.transposed else (second, first)


@dataclass
class Taps:
    """The taps of a model, and the tokens that count in the pass under way (None: all)."""

    taps: tuple[Tap, ...] = ()
    valid: Bool[Tensor, "fact pos"] | None = None
    changing: bool = True
    watching: bool = True
    active: bool = True


@contextmanager
def tapped(model: TransformerBridge, weights: Iterable[nn.Parameter]) -> Iterator[Taps]:
    """Put taps on the linear maps that own these weights, for the time of the block.

    Raises:
        UserError: a parameter that is no weight of a linear map.
    """
    wanted = {id(weight) for weight in weights}
    taps = Taps()
    changed: list[nn.Module] = []

    def back() -> None:
        for module in changed:
            vars(module).pop("forward", None)

    with undone(back):
        for name, module in hf(model).named_modules():
            weight = getattr(module, "weight", None)
            if id(weight) in wanted and isinstance(module, nn.Linear | Conv1D):
                assert isinstance(weight, nn.Parameter)
                tap = Tap(name, weight, isinstance(module, Conv1D))
                taps.taps += (tap,)
                changed.append(module)
                module.forward = _forward(module, tap, taps)  # type: ignore[method-assign]
                wanted.discard(id(weight))
        if wanted:
            names = [name for name, parameter in hf(model).named_parameters() if id(parameter) in wanted]
            raise UserError(f"CIR changes the gradients of linear maps; {names[0]!r} is no weight of one: leave it out")
        yield taps


def _forward(module: nn.Linear | Conv1D, tap: Tap, taps: Taps) -> Callable[[Tensor], Tensor]:
    original = type(module).forward

    def forward(x: Tensor) -> Tensor:
        if not (taps.active and torch.is_grad_enabled() and module.weight.requires_grad):
            return original(module, x)  # pyright: ignore[reportArgumentType]
        y = _Tapped.apply(x, module.weight, tap, taps)
        return y if module.bias is None else y + module.bias

    return forward


class _Tapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, tap: Tap, taps: Taps) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        # The tokens that count belong to this pass: there may be another one before the backward pass.
        ctx.tap, ctx.taps, ctx.valid = tap, taps, taps.valid
        return F.linear(x, weight.T if tap.transposed else weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        tap, taps = ctx.tap, ctx.taps
        # Under autocast gradients arrive in bf16; sums over tokens are made in the weight's own precision.
        grad = grads[0].to(weight.dtype)
        onward = None
        if ctx.needs_input_grad[0]:
            onward = F.linear(grad, weight if tap.transposed else weight.T).to(x.dtype)
        a, g = _tokens(x, ctx.valid, tap.name).to(weight.dtype), _tokens(grad, ctx.valid, tap.name)
        if taps.watching and tap.watch is not None:
            tap.watch(a, g)
        if not taps.changing or (tap.inputs is None and tap.outputs is None):
            return onward, (a.T @ g if tap.transposed else g.T @ a), None, None
        rounding = ROUNDING * torch.finfo(weight.dtype).eps * a.norm() * g.norm()
        a = a if tap.inputs is None else tap.inputs(a)
        g = g if tap.outputs is None else tap.outputs(g)
        gradient = a.T @ g if tap.transposed else g.T @ a
        # Where all was taken out, what is left is rounding, which a step of fixed length would blow up.
        return onward, gradient * (gradient.norm() > rounding), None, None


def _tokens(values: Tensor, valid: Bool[Tensor, "fact pos"] | None, name: str) -> Float[Tensor, "token width"]:
    """The vectors of the tokens that count; OPT's MLPs see all tokens in one row.

    Raises:
        UserError: the map does not see every token of the text (an expert sees those that are sent to it).
    """
    flat = rearrange(values, "... width -> (...) width")
    if valid is None:
        return flat
    if len(flat) != valid.numel():
        raise UserError(
            f"CIR looks at every token of the text; {name} sees vectors of shape {tuple(values.shape)} where the text "
            f"has {tuple(valid.shape)} tokens: leave it out (trainable=)"
        )
    return flat[valid.flatten()]
