"""LoRA adapters by peft, put into a bridge for a time and merged into its weights at the end (arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.pytorch_utils import Conv1D

from ..errors import UserError, check_whole
from ..undoing import undone
from .anatomy import slots
from .checkpoint import hf


@contextmanager
def lora(
    model: TransformerBridge, rank: int, alpha: int, layers: range | None = None, seed: int = 0
) -> Iterator[list[nn.Parameter]]:
    """Let low-rank adapters be trained in place of the linear maps of these blocks; yields their parameters.

    W + (alpha / rank)·B·A, A random after `seed`, B zero, so that nothing changes at first. However the block is
    left, the adapters are merged into the weights and gone, and what was trainable before is so again.

    Raises:
        UserError: a rank below 1, no linear map in these layers.
    """
    check_rank(model, rank)
    whole = hf(model)
    flags = [(parameter, parameter.requires_grad) for parameter in whole.parameters()]

    def back() -> None:
        for name, module in list(whole.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()
                parent, _, leaf = name.rpartition(".")
                setattr(whole.get_submodule(parent), leaf, module.get_base_layer())
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        vars(whole).pop("peft_config", None)

    with undone(back):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft says that it takes Conv1D for what it is, which is what is wanted.
            warnings.filterwarnings("ignore", "fan_in_fan_out")
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear_maps(model, layers))
            inject_adapter_in_model(config, whole)
        yield [parameter for name, parameter in whole.named_parameters() if "lora_" in name]


def check_rank(model: TransformerBridge, rank: int) -> None:
    """Raises UserError: a rank below 1, or as high as that of every map."""
    check_whole("the rank of an adapter", rank, 1)
    most = max(model.cfg.d_model, model.cfg.d_mlp or 0)
    if rank > most:
        raise UserError(
            f"the rank of an adapter must be at most {most} in this model, whose maps have no more, not {rank}"
        )


def linear_maps(model: TransformerBridge, layers: range | None = None) -> list[str]:
    """Names of the linear maps in these blocks; not of fused originals, which the forward pass does not read."""
    wanted = range(model.cfg.n_layers) if layers is None else layers
    read = {id(slot.tensor) for slot in slots(model) if slot.layer in wanted}
    found = [
        name
        for name, module in hf(model).named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) in read
    ]
    if not found:
        raise UserError(f"{type(hf(model)).__name__}: no linear map to adapt in layers {layers}")
    return found
