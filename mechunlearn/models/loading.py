"""Open a model: a hub name, a checkpoint folder, a transformers module, a bridge, or the built-in organism."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
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

Source = str | Path | nn.Module
"""What every verb takes for a model; see `load`."""

DATA = Path(__file__).parent.parent / "data"
BUILT_IN = {"organism": DATA / "organism", "organism:never-knew": DATA / "never-knew"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load(
    source: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> TransformerBridge:
    """A TransformerLens bridge around the model, with raw weights (nothing folded), in evaluation mode.

    Args:
        source: a hub name ("meta-llama/Llama-3.1-8B"), a checkpoint folder, a `transformers` causal language model, a
            `TransformerBridge`, or "organism" / "organism:never-knew". A bridge that already fits is returned as it
            is. Of a module the bridge shares the weights, and the module itself stays as it is; weights are copied
            only where another dtype or device is asked for.
        device: where to put it; None leaves a module or a bridge where it is, and takes a GPU for a checkpoint if
            there is one.
        dtype: "float32", "bfloat16", "float16" or "float64"; None leaves a module or a bridge as it is, and reads a
            checkpoint as float32, also one that was stored in bfloat16: rounding to bfloat16 alone was seen to be
            23–40 % of the effect of a small restoration.
        revision: branch, tag or commit on the hub.
        tokenizer: for modules, which carry none (one that was read from a folder has the folder's); else the
            checkpoint's own is used.

    Raises:
        UserError: missing folder, name not reachable, pickled or broken weights, tensors missing from the checkpoint,
            NaN or infinite weights, an architecture that TransformerLens does not know, a bridge in compatibility mode.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: not one of {', '.join(DTYPES)}")
    try:
        place = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device {device!r}: not one of cpu, cuda, cuda:1, mps ({str(error).splitlines()[0]})"
        ) from None
    wanted = Placement(place, None if dtype is None else DTYPES[dtype])
    if isinstance(source, TransformerBridge):
        return _bridge(source, wanted, tokenizer)
    if isinstance(source, nn.Module):
        return _module(source, wanted, tokenizer)
    if not isinstance(source, str | Path):
        raise UserError(f"{type(source).__name__}: a model is a name, a checkpoint folder, a module or a bridge")
    where = wanted.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, found, name = _from_checkpoint(source, wanted.dtype or torch.float32, revision)
    return wrap(cast(Any, module).to(where).eval(), tokenizer or found, name)


def load_to_ask(
    source: Source, *, device: str | torch.device | None = None, dtype: str | None = None
) -> TransformerBridge:
    """As `load`, for whoever shows facts to the model.

    Raises:
        UserError: as `load`; the model has no tokenizer.
    """
    model = load(source, device=device, dtype=dtype)
    if model.tokenizer is None:
        name = model.cfg.model_name
        raise UserError(f"{name} has no tokenizer, so facts cannot be shown to it: give load(…, tokenizer=…)")
    return model


@dataclass(frozen=True)
class Placement:
    """Where weights are to be, and how precise; None is as they are."""

    device: torch.device | None
    dtype: torch.dtype | None

    def holds(self, module: nn.Module) -> bool:
        """Whether all parameters are so already; a device without a number is any of its kind."""
        return all(self._on(p.device) and self.dtype in (None, p.dtype) for p in module.parameters())

    def _on(self, device: torch.device) -> bool:
        wanted = self.device
        return wanted is None or (wanted.type == device.type and wanted.index in (None, device.index))

    def put(self, module: Any) -> Any:
        """The module, moved there."""
        module = module if self.device is None else module.to(self.device)
        return module if self.dtype is None else module.to(self.dtype)


def _bridge(
    source: TransformerBridge, wanted: Placement, tokenizer: PreTrainedTokenizerBase | None
) -> TransformerBridge:
    if source.compatibility_mode:
        raise UserError("the bridge is in compatibility mode, which folds weights; load the model again without it")
    if wanted.holds(source.original_model) and tokenizer in (None, source.tokenizer):
        return source
    copied = wanted.put(clone(source))
    copied.tokenizer = tokenizer or source.tokenizer
    return copied


def _module(source: nn.Module, wanted: Placement, tokenizer: PreTrainedTokenizerBase | None) -> TransformerBridge:
    if not isinstance(source, PreTrainedModel):
        raise UserError(f"{type(source).__name__}: not a transformers model; give one made by AutoModelForCausalLM")
    # The tensors stay the caller's; the modules around them are ours, so that hooks, flags and names are not theirs.
    shared = {} if not wanted.holds(source) else {id(t): t for t in (*source.parameters(), *source.buffers())}
    module = wanted.put(copy.deepcopy(source, shared))
    module.set_attn_implementation("eager")
    return wrap(module.eval(), tokenizer or _read_with(source), type(source).__name__)


def _read_with(module: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the folder that the module was read from; None where it came from nowhere on this disk."""
    folder = module.name_or_path
    return _tokenizer(folder, {"trust_remote_code": False}, local=True) if folder and Path(folder).is_dir() else None


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
