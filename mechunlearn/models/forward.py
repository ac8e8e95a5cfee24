"""The one primitive: run a model from layer k on given residual streams, and unembed only where it is scored.

A patch leaves everything below its window untouched, so nothing below is computed again. `record` runs a model once
and keeps, for every block, the residual stream at its entry and the arguments it was called with (masks, rotary
angles); `resume` calls the blocks from layer k with those arguments on other residual streams. The blocks are the
bridge's own, so any TransformerLens hook on a block that runs fires as usual. (The bridge's own `start_at_layer=k`
runs the blocks below k all the same and throws their work away.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Tokens
from .anatomy import Slot
from .checkpoint import hf
from .hooks import Enough, Hook, hooked

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional after the residual stream, by keyword


@dataclass(frozen=True)
class Trace:
    """What one forward pass leaves behind for others to resume from.

    `entries[l]` is the residual stream at the entry of block l, `entries[n_layers]` the one after the last block;
    `arguments[l]` what else block l was called with; `saved` the activations asked for, by hook name.
    """

    tokens: Tokens
    entries: tuple[Float[Tensor, "fact pos d_model"], ...]
    arguments: tuple[Arguments, ...]
    saved: dict[str, Tensor]


@torch.inference_mode()
def record(model: TransformerBridge, tokens: Tokens, hooks: Iterable[str] = ()) -> Trace:
    """Run the blocks once and keep what others resume from. Nothing is unembedded.

    Raises:
        UserError: a hook asked for does not fire in this architecture.
    """
    wanted = set(hooks)
    saved: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def save(tensor: Tensor, *, hook: HookPoint) -> None:  # noqa: ARG001 - TransformerLens passes it by name
            saved[name] = tensor

        return save

    with hooked(model, [(name, keep(name)) for name in wanted]):
        entries, arguments = _run_blocks(model, tokens, len(model.blocks))
    silent = sorted(wanted - set(saved))
    if silent:
        raise UserError(f"hook {silent[0]} does not fire in {type(hf(model)).__name__}; it cannot be patched")
    return Trace(tokens, tuple(entries), tuple(arguments), saved)


@torch.inference_mode()
def embed(model: TransformerBridge, tokens: Tokens) -> Float[Tensor, "fact pos d_model"]:
    """The residual stream at the entry of the first block."""
    return _run_blocks(model, tokens, 0)[0][0]


def _run_blocks(model: TransformerBridge, tokens: Tokens, stop: int) -> tuple[list[Tensor], list[Arguments]]:
    """One forward pass that ends at the entry of block `stop` (of the final norm, where `stop` is the last)."""
    entries: list[Tensor] = []
    arguments: list[Arguments] = []

    def at_entry(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entries.append(args[0] if args else kwargs["hidden_states"])
        if len(entries) > stop:
            raise Enough
        arguments.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    places = [*model.blocks, model.ln_final]
    handles = [place.register_forward_pre_hook(at_entry, with_kwargs=True) for place in places]
    try:
        hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention, use_cache=False)
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return entries, arguments


@torch.inference_mode()
def resume(
    model: TransformerBridge,
    trace: Trace,
    layer: int,
    residual: Float[Tensor, "row pos d_model"],
    facts: Int[Tensor, " row"],
    hooks: Sequence[tuple[str, Hook]] = (),
    stop: int | None = None,
) -> Float[Tensor, "row pos d_model"]:
    """Run blocks `layer` … last (… `stop` − 1) on these residual streams; the result is the stream behind them.

    Args:
        trace: a recorded pass of this model, whose masks and positions are used.
        facts: the row of the trace that each row of `residual` belongs to.
        hooks: TransformerLens hook names on the blocks that run, with hook functions.
    """
    adapted: dict[int, Any] = {}
    width = len(trace.tokens)
    with hooked(model, hooks):
        for number in range(layer, len(model.blocks) if stop is None else stop):
            places, names = trace.arguments[number]
            named = {name: _rows(value, facts, width, adapted) for name, value in names.items()}
            out = model.blocks[number](residual, *_rows(places, facts, width, adapted), **named)
            residual = out[0] if isinstance(out, tuple) else out
    return residual


def _rows(value: Any, facts: Int[Tensor, " row"], width: int, adapted: dict[int, Any]) -> Any:
    """The argument for these rows. Blocks share most arguments, so each is adapted once a pass."""
    if isinstance(value, tuple):
        return tuple(_rows(part, facts, width, adapted) for part in value)
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] != width or width == 1:
        return value
    if id(value) not in adapted:
        adapted[id(value)] = value[facts]
    return adapted[id(value)]


@torch.inference_mode()
def unembed(model: TransformerBridge, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """Final norm, unembedding, and the cap on logits where the architecture has one (Gemma 2)."""
    logits = model.unembed(model.ln_final(residual[None]))[0]
    cap = getattr(hf(model).config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.inference_mode()
def check_replay(model: TransformerBridge, tokens: Tokens) -> float:
    """Largest difference between the logits of the plain forward pass and of record, resume and unembed.

    Raises:
        UserError: they are not the same computation, so this architecture cannot be dissected.
    """
    some = tokens[:2].trim()
    trace = record(model, some)
    rows = torch.arange(len(some), device=some.ids.device)
    final = resume(model, trace, 0, trace.entries[0], rows)
    real = some.attention.bool()
    ours = unembed(model, final[real])
    plain = hf(model)(input_ids=some.ids, attention_mask=some.attention, use_cache=False).logits[real]
    difference = float((ours - plain).abs().max())
    allowed = 1e3 * torch.finfo(plain.dtype).eps * max(1.0, float(plain.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"{type(hf(model)).__name__}: running its blocks one by one gives other logits than the model itself "
            f"(largest difference {difference:.3g}); this architecture is not supported"
        )
    return difference


@contextmanager
def parameters_of(donor: dict[str, Slot], slots: Iterable[Slot], select: tuple[int, ...] = ()) -> Iterator[None]:
    """Let these parameters of the recipient hold the donor's values, and put their own back whatever happens.

    No matrix is copied: the parameter's storage is exchanged. With `select`, only these rows of the input axis
    (value vectors) are the donor's, in a copy of the one matrix.
    """
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for slot in slots:
            own.append((slot.tensor, slot.tensor.data))
            slot.tensor.data = donor_value(donor[slot.path], slot, select)
        yield
    finally:
        for parameter, data in own:
            parameter.data = data


def donor_value(donor: Slot, own: Slot, select: tuple[int, ...] = ()) -> Tensor:
    """The donor's values for a parameter; with `select`, mixed into the recipient's own. Biases have no rows."""
    if not select:
        return donor.tensor.data
    value = own.tensor.data.clone()
    if value.dim() > 1:
        index = torch.tensor(select, device=value.device)
        value.index_copy_(own.features, index, donor.tensor.data.index_select(own.features, index))
    return value
