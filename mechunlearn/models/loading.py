"""Open a model: a hub name, a checkpoint folder, a transformers module, a bridge, or the built-in organism."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checking import checked
from ..errors import UserError, first_line
from ..naming import BUILT_IN, place_of
from ..reading import named, there
from ..undoing import as_found
from .adapters import merged, refuse_adapters
from .checkpoint import clone
from .opening import open_checkpoint, open_tokenizer
from .threads import fit_threads
from .wrapping import check_numbers, unwrapped, wrap

Source = str | Path | nn.Module
"""What every verb takes for a model; see `load`."""

SHORT_DTYPES = {  # the field's other names
    "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64",
    "float": "float32", "half": "float16", "double": "float64",
}  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@as_found
@checked
def load(
    source: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    merge: bool = False,
) -> TransformerBridge:
    """A TransformerLens bridge around the model, with raw weights (nothing folded), in evaluation mode.

    Args:
        source: a hub name ("meta-llama/Llama-3.1-8B"), a checkpoint folder, a `transformers` causal language model, a
            `TransformerBridge`, or "organism" / "organism:never-knew". A bridge that already fits is returned as it
            is. Of a module the bridge shares the weights, and the module itself stays as it is; weights are copied
            only where another dtype or device is asked for.
        device: where to put it; None leaves a module or a bridge where it is, and takes a GPU for a checkpoint if
            there is one.
        dtype: "float32", "bfloat16", "float16" or "float64", one of their short names ("bf16", "fp16", …) or torch's
            own; None leaves a module or a bridge as it is, and reads a checkpoint as float32, also one that was stored
            in bfloat16: rounding to bfloat16 alone was seen to be 23–40 % of the effect of a small restoration.
        revision: branch, tag or commit on the hub.
        merge: put adapters of peft's (in a module, or an adapter folder) into the weights of a copy; else a model that
            has some is refused, because a copy or a checkpoint of it would lose them.
        tokenizer: a tokenizer, or the folder or name of one: for modules, which carry none (one that was read from a
            folder has the folder's), and for checkpoints without; else the checkpoint's own is used.

    Raises:
        UserError: missing folder, name not reachable, pickled or broken weights, tensors missing from the checkpoint
            or without a place in the model, a quantised checkpoint, adapters without `merge`, NaN or infinite weights,
            an architecture that TransformerLens does not know or whose logits its wrapping changes, a bridge in
            compatibility mode.
    """
    if dtype is not None:
        dtype = _dtype(dtype)
    if isinstance(tokenizer, str | Path):
        folder = place_of(tokenizer)
        tokenizer = open_tokenizer(str(folder or tokenizer), {"trust_remote_code": False}, local=folder is not None)
        if tokenizer is None:
            raise UserError(f"{named(str(folder))}: holds no tokenizer")
    try:
        place = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r}: not one of cpu, cuda, cuda:1, mps ({first_line(error)})") from None
    if place is not None:
        _check_there(place)
    wanted = Placement(place, None if dtype is None else DTYPES[dtype])
    if isinstance(source, TransformerBridge):
        return _bridge(source, wanted, tokenizer)
    if isinstance(source, nn.Module):
        return _module(merged(source) if merge else source, wanted, tokenizer)
    if not isinstance(source, str | Path):
        raise UserError(f"{type(source).__name__}: a model is a name, a checkpoint folder, a module or a bridge")
    where = wanted.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, found, name = open_checkpoint(source, wanted.dtype or torch.float32, revision, merge)
    bridge = wrap(Placement(where, None).put(module).eval(), tokenizer or found, name)
    bridge.cfg.model_name = called(name)
    return bridge


def _dtype(given: str | torch.dtype) -> str:
    """One of `DTYPES`, by any of its names."""
    name = str(given).removeprefix("torch.")
    name = SHORT_DTYPES.get(name, name)
    if name not in DTYPES:
        raise UserError(f"dtype {given!r}: not one of {', '.join(DTYPES)} ({', '.join(SHORT_DTYPES)})")
    return name


def load_to_ask(
    source: Source, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> TransformerBridge:
    """As `load`, for whoever shows facts to the model, with as many threads as suit it.

    Raises:
        UserError: as `load`; the model has no tokenizer.
    """
    model = load(source, device=device, dtype=dtype)
    if model.tokenizer is None:
        name = model.cfg.model_name
        raise UserError(f"{name} has no tokenizer, so facts cannot be shown to it: give load(…, tokenizer=…)")
    fit_threads(model)
    return model


def called(name: str) -> str:
    """What a model is called in results: a folder by its own name, for where it lies is nobody's business.

    The model of a run is called as the run (`runs/npo/model`: npo; `runs/npo/stages/1/model`: npo stage 1).
    """
    if name in BUILT_IN or not there(name):
        return name
    parts = [part for part in Path(name).resolve().parts if part != "model"]
    if len(parts) > 2 and parts[-2] == "stages":
        return f"{parts[-3]} stage {parts[-1]}"
    return parts[-1]


def _check_there(place: torch.device) -> None:
    """Raises UserError: no such device here, or one that holds no numbers."""
    if place.type == "meta":
        raise UserError("device 'meta' holds no numbers, so nothing can be computed there; take cpu or cuda")
    try:
        torch.empty(1, device=place)
    except Exception as error:  # each kind of device that is not there raises in a way of its own
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(
            f"device {str(place)!r} is not here; here {'is' if len(here) == 1 else 'are'} {', '.join(here)}"
        ) from error


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
        """The module, moved there.

        Raises:
            UserError: the device's memory does not suffice.
        """
        try:
            module = module if self.device is None else module.to(self.device)
            return module if self.dtype is None else module.to(self.dtype)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{type(module).__name__} does not fit into the memory of {self.device}; take another device, or "
                'dtype="bfloat16"'
            ) from error


def _bridge(
    source: TransformerBridge, wanted: Placement, tokenizer: PreTrainedTokenizerBase | None
) -> TransformerBridge:
    if source.compatibility_mode:
        raise UserError("the bridge is in compatibility mode, which folds weights; load the model again without it")
    check_numbers(str(source.cfg.model_name), source.original_model)
    if wanted.holds(source.original_model) and tokenizer in (None, source.tokenizer):
        return source
    return wanted.put(clone(source, tokenizer))


def _module(source: nn.Module, wanted: Placement, tokenizer: PreTrainedTokenizerBase | None) -> TransformerBridge:
    if not isinstance(source, PreTrainedModel):
        mend = ", or load(…, merge=True)" if isinstance(source, PeftModel) else ""
        raise UserError(
            f"{type(source).__name__}: not a transformers model; give one made by AutoModelForCausalLM{mend}"
        )
    refuse_adapters(source, "load(…, merge=True) puts them into the weights of a copy")
    # The tensors stay the caller's; the modules around them are ours, so that hooks, flags and names are not theirs.
    shared = {} if not wanted.holds(source) else {id(t): t for t in (*source.parameters(), *source.buffers())}
    module = wanted.put(unwrapped(copy.deepcopy(source, shared)))
    module.set_attn_implementation("eager")
    return wrap(module.eval(), tokenizer or _read_with(source), type(source).__name__)


def _read_with(module: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the folder that the module was read from; None where it came from nowhere on this disk."""
    folder = module.name_or_path
    return (
        open_tokenizer(folder, {"trust_remote_code": False}, local=True) if folder and Path(folder).is_dir() else None
    )
