"""Out of the bridge again: the checkpoint's own tensors, a saved folder, a copy."""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import UserError
from .anatomy import fused_modules, slots
from .wrapping import quiet_loading, wrap


def hf(model: TransformerBridge) -> PreTrainedModel:
    """The Hugging Face model beneath the bridge: the same weights, and the same logits."""
    return cast(PreTrainedModel, model.original_model)


def state(model: TransformerBridge) -> dict[str, Tensor]:
    """Every tensor of the checkpoint under its Hugging Face name, as the bridge computes with it now.

    Fused projections are put together again from the parts, because training moves the parts alone.
    """
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(hf(model).config)
    joined = {id(tensor): value for module in fused_modules(model) for tensor, value in _joined(*module)}
    found = {}
    for name in skeleton.state_dict():
        tensor = _resolve(hf(model), name)
        found[name] = joined.get(id(tensor), tensor.detach())
    return found


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
    try:
        for leaf, parameter in original.items():
            if parameter is not None:
                count = torch.arange(parameter.numel(), dtype=torch.float64, device=parameter.device)
                fused._parameters[leaf] = nn.Parameter(count.view_as(parameter))
        split = getattr(container, "split_qkv_matrix", None) or container.split_gate_up_matrix
        probes = dict(zip(parts, split(container.original_component), strict=True))
    finally:
        fused._parameters.update(original)

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


def save(model: TransformerBridge, folder: str | Path) -> Path:
    """Write a Hugging Face checkpoint (config, safetensors, tokenizer) that plain `transformers` loads.

    Written beside the target and renamed when whole, so a folder that exists is complete.

    Raises:
        UserError: the folder exists already, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not empty; give a new folder for the model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        config = copy.deepcopy(hf(model).config)
        config.architectures = [type(hf(model)).__name__]
        config.dtype = str(next(hf(model).parameters()).dtype).removeprefix("torch.")
        config.save_pretrained(unfinished)
        if hf(model).generation_config is not None:
            hf(model).generation_config.save_pretrained(unfinished)
        save_torch_state_dict(state(model), unfinished, metadata={"format": "pt"})
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: the model could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def fingerprint(model: TransformerBridge) -> str:
    """A hash over the names and values of all parameters that the forward pass reads."""
    digest = hashlib.blake2b(digest_size=16)
    for slot in slots(model):
        digest.update(slot.path.encode())
        digest.update(slot.tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clone(model: TransformerBridge) -> TransformerBridge:
    """An independent copy: the same weights, tokenizer, device, dtype and mode, no hooks."""
    source = hf(model)
    tensors = {name: tensor.clone() for name, tensor in state(model).items()}
    with quiet_loading():
        copied = type(source).from_pretrained(
            None,
            config=copy.deepcopy(source.config),
            state_dict=tensors,
            dtype=next(source.parameters()).dtype,
            attn_implementation="eager",
        )
    copied = cast(Any, copied).to(next(source.parameters()).device)
    twin = wrap(copied, model.tokenizer, model.cfg.model_name)
    twin.train(model.training)
    return twin
