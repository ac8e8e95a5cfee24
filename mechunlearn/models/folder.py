"""A checkpoint folder before anything is opened: whole files, weights that are numbers, as many as its blocks need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..reading import parse_json, read_text

# Tensors that older versions of the libraries wrote beside the weights, and that every model computes for itself.
HARMLESS = re.compile(r"(rotary_emb\.inv_freq|\.attn\.(bias|masked_bias)|attention\.(bias|masked_bias)|position_ids)$")
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # how configurations call the number of blocks


def check_folder(folder: Path) -> None:
    """Whether this can be a checkpoint, told without reading weights.

    Raises:
        UserError: no folder, no or no readable config.json, pickled or broken weights, weights that are no
            floating-point numbers, more blocks than the weights can be of.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no folder; give a checkpoint folder, with config.json and *.safetensors in it")
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder}: no config.json; this is not a Hugging Face checkpoint folder")
    config = parse_json(read_text(file), str(file))
    if not isinstance(config, dict):
        raise UserError(f"{file}: no table of settings; this is not the configuration of a model")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickled:
            raise UserError(
                f"{pickled[0]}: pickled weights can run code when opened and are refused; "
                "convert them with transformers' save_pretrained(safe_serialization=True)"
            )
        raise UserError(f"{folder}: no *.safetensors file")
    count = 0
    for weight in weights:
        for name, kind in tensors(weight):
            count += 1
            if "quantization_config" not in config and not kind.startswith(("F", "BF")) and not HARMLESS.search(name):
                raise UserError(
                    f"{weight}: {name} holds numbers of the kind {kind}, no floating-point numbers: quantised, or not "
                    "weights at all; give the model in float32 or bfloat16"
                )
    _check_depth(file, config, count)


def tensors(file: Path) -> Iterator[tuple[str, str]]:
    """Names and kinds of the tensors in a file, from its header.

    Raises:
        UserError: it is no whole file of tensors.
    """
    if not file.is_file():
        raise UserError(f"{file}: no regular file; copy the checkpoint again")
    try:
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - it is no dict
                yield name, str(handle.get_slice(name).get_dtype())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: broken or cut short ({error}); copy the checkpoint again") from error


def _check_depth(file: Path, config: dict[str, Any], count: int) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name in DEPTHS:
            depth = part.get(name)
            if isinstance(depth, int) and depth > count:
                raise UserError(
                    f"{file}: {name} is {depth}, and the weights are {count} tensors, which it does not describe"
                )
