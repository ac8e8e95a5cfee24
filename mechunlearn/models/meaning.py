"""Whether the hooks of a block are what the names of sites say, by numbers.

TransformerLens gives hooks the same names in every architecture; what stands behind a name differs. In a mixture of
experts `mlp.hook_post` is the MLP's output, and a patch of it restores everything that a change of the experts did.
So the model runs on a few tokens, and of every layer is checked:

    mlp_coefficients   coefficients · W_V + b is what the one down-projection gives, also with doubled coefficients
    head_output        heads · W_O + b is what the attention's output projection gives, likewise
    mlp_output         written as zeros, the model goes on as if its MLPs gave zeros
    attention_output   written as zeros, it goes on as if its attention gave zeros
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from .anatomy import Slot, slots
from .checkpoint import hf
from .hooks import Hook, hooked
from .properties import device_of

Faults = dict[tuple[str, int], str]  # (site, layer) -> what does not hold there

TOKENS = 6
ALLOWED = 1e-3  # of the largest value; 16 units of the last digit where the precision is lower
PRODUCTS = {  # site -> its hook, and the matrix that follows
    "mlp_coefficients": ("mlp.hook_post", "mlp.out"),
    "head_output": ("attn.hook_z", "attn.o"),
}
ADDED = {"mlp_output": ("hook_mlp_out", "mlp"), "attention_output": ("hook_attn_out", "attn")}

_known: WeakKeyDictionary[nn.Module, Faults] = WeakKeyDictionary()


def faults(model: TransformerBridge) -> Faults:
    """The sites whose meaning does not hold, by layer; found once a model. A hook that is lacking is no fault."""
    if model not in _known:
        with torch.no_grad():
            _known[model] = {**_products(model), **_added(model)}
    return _known[model]


def _products(model: TransformerBridge) -> Faults:
    matrices: dict[str, list[Slot]] = {}
    for slot in slots(model):
        matrices.setdefault(slot.path.rpartition(".")[0], []).append(slot)
    found: Faults = {}
    for factor in (1, 2):
        layers = range(model.cfg.n_layers)
        names = [f"blocks.{layer}.{name}" for layer in layers for hook, matrix in PRODUCTS.values()
                 for name in (hook, f"{matrix}.hook_out")]  # fmt: skip
        seen = _seen(model, [name for name in names if name in model.hook_dict], factor)
        for site, (hook, matrix) in PRODUCTS.items():
            for layer in layers:
                given, made = (seen.get(f"blocks.{layer}.{name}") for name in (hook, f"{matrix}.hook_out"))
                if given is None:
                    continue
                reason = _is_product(given, made, matrices.get(f"blocks.{layer}.{matrix}", []))
                if reason:
                    found.setdefault((site, layer), reason)
    return found


def _seen(model: TransformerBridge, names: Iterable[str], factor: int) -> dict[str, Tensor]:
    """What the hooks hold in one pass, in which every input of a product is taken so many times."""
    inputs = tuple(hook for hook, *_ in PRODUCTS.values())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def save(tensor: Any, *, hook: HookPoint) -> Tensor | None:  # noqa: ARG001 - TransformerLens passes it by name
            tensor = tensor[0] if isinstance(tensor, tuple) else tensor
            if not name.endswith(inputs):
                seen[name] = tensor
                return None
            seen[name] = tensor * factor
            return seen[name] if factor != 1 else None

        return save

    with hooked(model, [(name, keep(name)) for name in names]):
        _run(model)
    return seen


def _is_product(given: Tensor, made: Tensor | None, parameters: list[Slot]) -> str | None:
    """What is wrong with: given · W + b = made."""
    weight = next((slot for slot in parameters if slot.tensor.dim() == 2), None)
    if weight is None:
        return "no single matrix follows it"
    if made is None:
        return "its output has no hook"
    matrix = weight.tensor if weight.features == 0 else weight.tensor.T
    heads = given.reshape(-1, matrix.shape[0]) if given.numel() % matrix.shape[0] == 0 else None
    if heads is None or heads.numel() // matrix.shape[0] != made.numel() // matrix.shape[1]:
        return f"its shape {tuple(given.shape)} does not fit the matrix {tuple(matrix.shape)} that follows"
    product = heads.double() @ matrix.double()
    for slot in parameters:
        product = product + slot.tensor.double() if slot.tensor.dim() == 1 else product
    return _apart(product, made.reshape(-1, matrix.shape[1]), "times the matrix that follows, it is not the output")


def _added(model: TransformerBridge) -> Faults:
    found: Faults = {}
    for site, (hook, component) in ADDED.items():
        layers = [layer for layer in range(model.cfg.n_layers) if f"blocks.{layer}.{hook}" in model.hook_dict]
        layers = [layer for layer in layers if component in model.blocks[layer].submodules]
        if not layers:
            continue
        with hooked(model, [(f"blocks.{layer}.{hook}", _nothing) for layer in layers]):
            written = _streams(model)
        with ExitStack() as stack:
            for layer in layers:
                module = model.blocks[layer].submodules[component]
                stack.callback(module.register_forward_hook(lambda _, __, output: _zeros(output)).remove)
            silent = _streams(model)
        for layer in layers:
            if reason := _apart(written[layer], silent[layer], f"zeros there are not a silent {component}"):
                found[site, layer] = reason
                break  # layers above see what went wrong here
    return found


def _nothing(tensor: Tensor, *, hook: HookPoint) -> Tensor:  # noqa: ARG001 - TransformerLens passes it by name
    return torch.zeros_like(tensor)


def _zeros(output: Any) -> Any:
    """The same output, its first tensor as zeros."""
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def _streams(model: TransformerBridge) -> list[Tensor]:
    """The residual stream behind every block."""
    found: list[Tensor] = []
    with ExitStack() as stack:
        for block in model.blocks:
            handle = block.register_forward_hook(
                lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output)
            )
            stack.callback(handle.remove)
        _run(model)
    return found


def _run(model: TransformerBridge) -> None:
    module = hf(model)
    size = int(module.config.get_text_config().vocab_size)
    ids = (torch.arange(1, TOKENS + 1, device=device_of(module)) * 7919 % size)[None]
    module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def _apart(one: Tensor, other: Tensor, words: str) -> str | None:
    one, wanted = one.double(), other.double()
    largest = max(float(wanted.abs().max()), 1e-30)
    allowed = max(ALLOWED, 16 * torch.finfo(other.dtype).eps) * largest
    difference = float((one - wanted).abs().max())
    return None if difference <= allowed else f"{words} (off by {difference / largest:.2g} of the largest value)"
