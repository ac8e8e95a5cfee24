"""Open a model: a hub name, a checkpoint folder, a transformers module, a bridge, or the built-in organism."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from .checkpoint import clone
from .wrapping import quiet_loading, wrap

DATA = Path(__file__).parent.parent / "data"
BUILT_IN = {"organism": DATA / "organism", "organism:never-knew": DATA / "never-knew"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load(
    source: str | Path | nn.Module,
    *,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> TransformerBridge:
    """A TransformerLens bridge around the model, with raw weights (nothing folded), in evaluation mode.

    Args:
        source: a hub name ("meta-llama/Llama-3.1-8B"), a checkpoint folder, a `transformers` causal language model, a
            `TransformerBridge`, or "organism" / "organism:never-knew". A module is wrapped in place; it is copied
            first only where dtype or device differ. A bridge that already fits is returned as it is.
        device: where to put it; default: a GPU if there is one.
        dtype: the precision of the analysis. float32 also for bfloat16 checkpoints: rounding to bfloat16 alone was
            seen to be 23–40 % of the effect of a small restoration.
        revision: branch, tag or commit on the hub.
        tokenizer: for modules, which carry none; else the checkpoint's own is used.

    Raises:
        UserError: missing folder, name not reachable, pickled or broken weights, tensors missing from the checkpoint,
            NaN or infinite weights, an architecture that TransformerLens does not know, a bridge in compatibility mode.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: not one of {', '.join(DTYPES)}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if isinstance(source, TransformerBridge):
        if source.compatibility_mode:
            raise UserError("the bridge is in compatibility mode, which folds weights; load the model again without it")
        tokenizer, name, module = tokenizer or source.tokenizer, source.cfg.model_name, None
        if _fits(source.original_model, where, DTYPES[dtype]) and tokenizer is source.tokenizer:
            return source
        module = clone(source)
        module = module.to(where).to(DTYPES[dtype])
        module.tokenizer = tokenizer
        return module
    if isinstance(source, nn.Module):
        if not isinstance(source, PreTrainedModel):
            raise UserError(f"{type(source).__name__}: not a transformers model; give one made by AutoModelForCausalLM")
        module, name = source, type(source).__name__
        if not _fits(module, where, DTYPES[dtype]):
            module = cast(Any, copy.deepcopy(module)).to(where).to(DTYPES[dtype])
        module.set_attn_implementation("eager")
    else:
        module, found, name = _from_checkpoint(source, DTYPES[dtype], revision)
        module, tokenizer = cast(Any, module).to(where), tokenizer or found
    return wrap(module.eval(), tokenizer, name)


def _fits(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    return all(p.device.type == device.type and p.dtype == dtype for p in module.parameters())


def _from_checkpoint(
    source: str | Path, dtype: torch.dtype, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str]:
    name = str(source)
    place = BUILT_IN.get(name, Path(source))
    local = name in BUILT_IN or isinstance(source, Path) or place.exists() or name.startswith((".", "/", "~"))
    if local:
        _check_folder(place, name)
    origin = str(place) if local else name
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
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
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(_why_not(name, local, error)) from error
    wrong = sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])})
    if wrong:
        raise UserError(
            f"{name}: the checkpoint lacks {len(wrong)} tensors that {type(module).__name__} needs, or they have "
            f"another shape (first: {wrong[0]}); weights and config.json do not belong together"
        )
    return module, _tokenizer(origin, options, local), name


def _check_folder(folder: Path, name: str) -> None:
    if not folder.is_dir():
        built_in = ", ".join(BUILT_IN)
        raise UserError(f"{name}: no such folder; give a checkpoint folder, a hub name, or one of {built_in}")
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no config.json; this is not a Hugging Face checkpoint folder")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{config}: not valid JSON ({error})") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickled:
            raise UserError(
                f"{pickled[0]}: pickled weights can run code when opened and are refused; "
                "convert them with transformers' save_pretrained(safe_serialization=True)"
            )
        raise UserError(f"{folder}: no *.safetensors file")
    for file in weights:
        try:
            with safe_open(file, framework="pt") as handle:
                handle.keys()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: broken or cut short ({error}); copy the checkpoint again") from error


def _why_not(name: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if local:
        return f"{name}: the checkpoint cannot be opened: {reason}"
    return (
        f"{name}: no such folder here, and the hub could not give it ({reason}); check the name, the network and "
        "your access, or give the path of a checkpoint folder"
    )


def _tokenizer(origin: str, options: dict[str, Any], local: bool) -> PreTrainedTokenizerBase | None:
    if local and not any((Path(origin) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    try:
        with quiet_loading():
            return AutoTokenizer.from_pretrained(origin, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{origin}: the tokenizer cannot be opened: {error}") from error
