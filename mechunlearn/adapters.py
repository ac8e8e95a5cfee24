"""LoRA adapters by peft, put into a bridge for a time and merged into its weights at the end (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from .errors import UserError
from .models import hf


@contextmanager
def lora(
    model: TransformerBridge, rank: int, alpha: int, layers: range | None = None, seed: int = 0
) -> Iterator[list[nn.Parameter]]:
    """Let low-rank adapters be trained in place of the linear maps of these blocks; yields their parameters.

    W + (alpha / rank)·B·A, A random after `seed`, B zero, so that nothing changes at first. However the block is
    left, the adapters are merged into the weights and gone.

    Raises:
        UserError: a rank below 1, no linear map in these layers.
    """
    if rank < 1:
        raise UserError(f"the rank of an adapter must be at least 1, not {rank}")
    whole = hf(model)
    inside = [f".{layer}." for layer in (range(model.cfg.n_layers) if layers is None else layers)]
    targets = [
        name
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear) and any(part in name for part in inside)
    ]
    if not targets:
        raise UserError(f"{type(whole).__name__}: no linear map to adapt in layers {layers}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), whole)
    try:
        yield [parameter for name, parameter in whole.named_parameters() if "lora_" in name]
    finally:
        for name, module in list(whole.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()
                parent, _, leaf = name.rpartition(".")
                setattr(whole.get_submodule(parent), leaf, module.get_base_layer())
