"""Out of the bridge again: the checkpoint's own tensors, a saved folder, a copy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..checking import checked
from ..errors import UserError
from ..reading import there
from ..runs import renamed_when_whole
from ..undoing import as_found, undone
from .adapters import refuse_adapters
from .anatomy import fused_modules
from .wrapping import quiet_loading, wrap


def hf(model: TransformerBridge) -> PreTrainedModel:
    """The Hugging Face model beneath the bridge: the same weights, and the same logits."""
    return cast(PreTrainedModel, model.original_model)


def state(model: TransformerBridge) -> dict[str, Tensor]:
    """Every tensor of the checkpoint under its Hugging Face name, as the bridge computes with it now.

    Fused projections are put together again from the parts, because training moves the parts alone.

    Raises:
        UserError: adapters beside the weights.
    """
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(hf(model).config)
    joined = _joined_values(model)
    return {name: _value(model, name, joined)[1] for name in skeleton.state_dict()}


def _joined_values(model: TransformerBridge) -> dict[int, Tensor]:
    """What the fused projections hold, by the identity of the fused parameter.

    Raises:
        UserError: adapters beside the weights, which no checkpoint and no copy would have.
    """
    mend = "load it with merge=True, which puts them into the weights"
    refuse_adapters(hf(model), mend)
    return {id(tensor): value for module in fused_modules(model) for tensor, value in _joined(*module)}


def _value(model: TransformerBridge, name: str, joined: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """The tensor of that Hugging Face name, and what it holds as the bridge computes now."""
    tensor = _resolve(hf(model), name)
    return tensor, joined.get(id(tensor), tensor.detach())


def _resolve(model: nn.Module, name: str) -> Tensor:
    place: object = model
    for part in name.split("."):
        while isinstance(place, GeneralizedComponent):
            place = place.original_component
        place = getattr(place, part)
    assert isinstance(place, Tensor)
    return place


def _joined(container: Any, fused: nn.Module, parts: dict[str, nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """(fused parameter, its value put together from the parts).

    How the parts lie in the fused matrix differs by architecture, so the bridge's own splitter is asked: it is given
    a matrix whose elements are their own positions.
    """
    original = dict(fused._parameters)
    with undone(lambda: fused._parameters.update(original)):
        for leaf, parameter in original.items():
            if parameter is not None:
                count = torch.arange(parameter.numel(), dtype=torch.float64, device=parameter.device)
                fused._parameters[leaf] = nn.Parameter(count.view_as(parameter))
        split = getattr(container, "split_qkv_matrix", None) or container.split_gate_up_matrix
        probes = dict(zip(parts, split(container.original_component), strict=True))

    values = []
    for leaf, parameter in original.items():
        if parameter is None:
            continue
        value = parameter.detach().clone().flatten()
        for part, module in parts.items():
            where = getattr(probes[part], leaf).detach().long().flatten()
            value[where] = getattr(module, leaf).detach().flatten()
        values.append((parameter, value.view_as(parameter)))
    return values


@as_found
@checked
def save(model: TransformerBridge, folder: str | Path) -> Path:
    """Write a Hugging Face checkpoint (config, safetensors, tokenizer) that plain `transformers` loads.

    Written beside the target, flushed to disk and renamed when whole, so a folder that exists is complete.

    Raises:
        UserError: the folder exists already, or the disk is full; adapters beside the weights.
    """
    folder = Path(folder)
    if there(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not empty; give a new folder for the model")
    written, source = state(model), hf(model)
    config = copy.deepcopy(source.config)
    config.architectures = [type(source).__name__]
    config.dtype = str(next(source.parameters()).dtype).removeprefix("torch.")
    with renamed_when_whole(folder) as unfinished:
        unfinished.mkdir()
        config.save_pretrained(unfinished)
        if source.generation_config is not None:
            source.generation_config.save_pretrained(unfinished)
        try:
            save_torch_state_dict(written, unfinished, metadata={"format": "pt"})
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(None, str(error)) from error
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(unfinished)
    return folder


@checked
def clone(model: TransformerBridge, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformerBridge:
    """An independent copy: the same weights, device, dtype and mode, no hooks; and the tokenizer, or another one.

    An empty skeleton is filled tensor by tensor: there are never more than two models in memory.

    Raises:
        UserError: adapters beside the weights.
    """
    source = hf(model)
    config = copy.deepcopy(source.config)
    config._attn_implementation = "eager"
    with quiet_loading(), torch.device("meta"):
        copied = type(source)(config)
    made: dict[int, Tensor] = {}  # what is one tensor in the model (tied embeddings) is one in the copy

    def filled(name: str, empty: Tensor) -> Tensor:
        tensor, value = _value(model, name, joined)
        if id(tensor) not in made:
            value = value.clone()
            made[id(tensor)] = nn.Parameter(value) if isinstance(empty, nn.Parameter) else value
        return made[id(tensor)]

    joined = _joined_values(model)
    for prefix, module in copied.named_modules():
        for own in (module._parameters, module._buffers, vars(module)):
            empty = {leaf: tensor for leaf, tensor in own.items() if isinstance(tensor, Tensor)}
            own.update({leaf: filled(f"{prefix}.{leaf}".lstrip("."), tensor) for leaf, tensor in empty.items()})  # type: ignore[arg-type]
    copied.generation_config = copy.deepcopy(source.generation_config)
    twin = wrap(copied.eval(), tokenizer or model.tokenizer, model.cfg.model_name)
    twin.train(model.training)
    return twin
