"""Open a checkpoint: a folder, a name on the hub, an adapter's folder. Every tensor in it must have its place."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError, first_line
from ..naming import check_there, place_of
from ..reading import parse_json, read_text
from .adapters import merged
from .folder import HARMLESS, check_folder
from .wrapping import quiet_loading

PREFIXES = {"_orig_mod.": "torch.compile", "module.": "DataParallel or accelerate", "base_model.model.": "peft"}


def open_checkpoint(
    source: str | Path, dtype: torch.dtype, revision: str | None, merge: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str]:
    """The module, its tokenizer if there is one, and its name; for the arguments see `load`."""
    name = str(source)
    check_there(source, revision)
    place = place_of(source)
    local = place is not None
    if place is not None:
        if (place / "adapter_config.json").is_file() and not (place / "config.json").is_file():
            return _adapter(place, dtype, merge)
        check_folder(place)
    origin = str(place) if local else name
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    config: Any = None
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(origin, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                origin, config=config, dtype=dtype, attn_implementation="eager",
                use_safetensors=True, output_loading_info=True, **options,
            )  # fmt: skip
            module, report = loaded
    except (SafetensorError, EOFError) as error:
        raise UserError(f"{name}: the weights are broken or cut short ({error}); copy the checkpoint again") from error
    except Exception as error:  # a stranger's configuration: libraries raise whatever comes
        raise UserError(_quantised(name, config, error) or _why_not(name, local, error)) from error
    _check_context(name, module)
    _check_places(name, module, report)
    return module, open_tokenizer(origin, options, local), name


def _check_context(name: str, module: PreTrainedModel) -> None:
    context = getattr(module.config, "max_position_embeddings", None)
    if context is not None and (not isinstance(context, int) or context < 2):
        raise UserError(f"{name}: config.json says that the model takes {context!r} tokens (max_position_embeddings)")


def _check_places(name: str, module: PreTrainedModel, report: dict[str, Any]) -> None:
    """Every parameter has its tensor, and every tensor its parameter."""
    kind = type(module).__name__
    ignored = [re.compile(pattern) for pattern in module._keys_to_ignore_on_load_unexpected or ()]
    homeless = sorted(
        str(key) for key in report["unexpected_keys"]
        if not HARMLESS.search(str(key)) and not any(pattern.search(str(key)) for pattern in ignored)
    )  # fmt: skip
    for prefix, origin in PREFIXES.items():
        if any(key.startswith(prefix) for key in homeless):
            raise UserError(
                f"{name}: its tensors are named {prefix}… as {origin} does (first: {homeless[0]}); "
                f"save the model inside the wrapper, or rename the tensors without {prefix!r}"
            )
    wrong = sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])})
    if wrong:
        raise UserError(
            f"{name}: the checkpoint lacks {len(wrong)} tensors that {kind} needs, or they have "
            f"another shape (first: {wrong[0]}); weights and config.json do not belong together"
        )
    if homeless:
        mend = "config.json does not describe these weights (layers, biases, architecture)"
        if any(part in homeless[0] for part in (".lora_", "ia3_", ".base_layer.")):
            mend = "they are an adapter's: merge it into the weights (peft's merge_and_unload) before saving"
        raise UserError(
            f"{name}: {len(homeless)} tensors of the checkpoint have no place in {kind} (first: {homeless[0]}); {mend}"
        )


def _quantised(name: str, config: Any, error: Exception) -> str | None:
    """Why a quantised checkpoint cannot be opened; None where it is none."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    reason = _reason(error)
    return (
        f"{name}: the weights are quantised ({getattr(method, 'value', method)}) and cannot be opened here ({reason}); "
        "weights that are to be compared and restored must be numbers: give the model as it was before quantisation"
    )


def _adapter(
    folder: Path, dtype: torch.dtype, merge: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str]:
    """The model that the adapter in this folder belongs to, with the adapter in its weights."""
    said = parse_json(read_text(folder / "adapter_config.json"), f"{folder}/adapter_config.json")
    base = said.get("base_model_name_or_path") if isinstance(said, dict) else None
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{folder}/adapter_config.json: does not say which model it belongs to (base_model_name_or_path)"
        )
    if not merge:
        raise UserError(f"{folder}: an adapter for {base}; load(…, merge=True) opens that model and merges it in")
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"{folder}: no adapter_model.safetensors; pickled adapters can run code and are refused")
    module, words, _ = open_checkpoint(base, dtype, None, merge=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*adapter keys.*")
            adapted = PeftModel.from_pretrained(module, str(folder), torch_device="cpu")
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, UserWarning) as error:
        raise UserError(f"{folder}: the adapter does not fit {base}: {first_line(error)}") from error
    return merged(adapted), open_tokenizer(str(folder), {"trust_remote_code": False}, local=True) or words, str(folder)


def _why_not(name: str, local: bool, error: Exception) -> str:
    reason = _reason(error)
    if local:
        return f"{name}: the checkpoint cannot be opened: {reason}"
    return (
        f"{name}: no such folder here, and the hub could not give it ({reason}); check the name, the network and "
        "your access, or give the path of a checkpoint folder"
    )


def _reason(error: Exception) -> str:
    """The first line of what was raised, and its kind where that alone says nothing."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text if isinstance(error, OSError | UserError) and len(text) > 20 else f"{type(error).__name__}: {text}"


def open_tokenizer(origin: str, options: dict[str, Any], local: bool) -> PreTrainedTokenizerBase | None:
    if local and not any((Path(origin) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    try:
        with quiet_loading():
            return AutoTokenizer.from_pretrained(origin, **options)
    except Exception as error:  # a stranger's files: the libraries raise whatever comes
        raise UserError(f"{origin}: the tokenizer cannot be opened: {_reason(error)}") from error
