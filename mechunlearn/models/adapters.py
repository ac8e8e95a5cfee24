"""Adapters that a model came with: found, refused by name, or merged into the weights on request."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from ..errors import UserError

Layer = BaseTunerLayer | AuxiliaryTrainingWrapper


def adapters(module: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The outermost layers of peft's in the module, by name."""
    found: list[str] = []
    for name, part in module.named_modules():
        if isinstance(part, Layer) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
            yield name, part


def refuse_adapters(module: nn.Module, mend: str) -> None:
    """Raises UserError: there are adapters beside the weights, which what follows would lose."""
    held = list(adapters(module))
    if held:
        name, layer = held[0]
        raise UserError(
            f"{type(module).__name__} has {len(held)} adapter layers beside its weights (first: {name}, peft's "
            f"{type(layer).__name__}); {mend}"
        )


def merged(module: nn.Module) -> PreTrainedModel:
    """A copy whose weights hold what the adapters add, without adapters.

    The weights that no adapter touches are the caller's own. A matrix that is tied to another one is untied where an
    adapter changes only one of them, as the configuration then says.

    Raises:
        UserError: an adapter that is no change of weights (prompt tuning, a bottleneck), or one on quantised weights.
    """
    if isinstance(module, PeftModel):
        if module.active_peft_config.is_prompt_learning:
            kind = module.active_peft_config.peft_type
            raise UserError(f"the adapter ({kind}) puts tokens before the text and changes no weights; it has no merge")
        module = module.get_base_model()
    touched = {id(p) for _, layer in adapters(module) for p in cast(nn.Module, layer).parameters()}
    shared = {id(t): t for t in (*module.parameters(), *module.buffers()) if id(t) not in touched}
    whole = cast(PreTrainedModel, copy.deepcopy(module, shared))
    for name, layer in list(adapters(whole)):
        parent, _, leaf = name.rpartition(".")
        setattr(whole.get_submodule(parent), leaf, _plain(name, layer, whole))
    vars(whole).pop("peft_config", None)
    whole._hf_peft_config_loaded = False
    return whole


def _plain(name: str, layer: Layer, whole: PreTrainedModel) -> nn.Module:
    """The layer that computes the same without an adapter."""
    if isinstance(layer, ModulesToSaveWrapper):
        _untie(layer.original_module, layer, whole)
        return cast(nn.Module, layer.modules_to_save[layer.active_adapters[0]])
    base = cast(nn.Module, layer.get_base_layer()) if isinstance(layer, BaseTunerLayer) else layer.original_module
    _untie(base, cast(nn.Module, layer), whole)
    try:
        cast(Any, layer).merge(safe_merge=True) if isinstance(layer, BaseTunerLayer) else cast(Any, layer).merge()
    except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"{name}: peft's {type(layer).__name__} cannot be merged into the weights ({error or 'it is none of them'})"
        ) from error
    return cast(nn.Module, layer.get_base_layer()) if isinstance(layer, BaseTunerLayer) else layer.original_module


def _untie(base: nn.Module, layer: nn.Module, whole: PreTrainedModel) -> None:
    """Give the layer weights of its own, where others read the same ones."""
    inside = {id(part) for part in layer.modules()}
    outside = {id(p) for part in whole.modules() if id(part) not in inside for p in part._parameters.values()}
    for leaf, parameter in list(base._parameters.items()):
        if parameter is not None and id(parameter) in outside:
            base._parameters[leaf] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            whole.config.tie_word_embeddings = False
