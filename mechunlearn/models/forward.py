"""The one forward pass: what a model predicts where it is scored, and a pass that can be taken up again at any block.

`scored_logits` gives the logits that predict answers, and computes no others. `record` runs the blocks once and keeps,
for every block, the residual stream at its entry and the arguments it was called with (masks, rotary angles); `resume`
calls the blocks from layer k with those arguments on other residual streams, since a patch leaves everything below its
window untouched. The blocks are the bridge's own, so any TransformerLens hook on a block that runs fires as usual.
(The bridge's own `start_at_layer=k` runs the blocks below k all the same and throws their work away.)

Nothing here decides about gradients: callers choose `torch.no_grad`, `measuring`, or neither.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..errors import NotFiniteError, UserError, check_whole
from ..facts import Tokens
from ..undoing import undone, unhooked
from .arguments import Arguments, Layout, Rows, layout, select
from .checkpoint import hf
from .hooks import Enough, Hook, hooked
from .properties import LanguageModel, device_of, vocabulary_of

LOGIT_FACTORS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}  # by their names in configurations
TOKENS_AT_ONCE = 2**15  # in one pass, whatever batch is asked for: 512 MB a stream of 4,096 in float32
LOGITS_AT_ONCE = 2**25  # 128 MB in float32; what is made of them (log-probabilities, ranks) takes a few times that


def scored_logits(model: LanguageModel, tokens: Tokens) -> Float[Tensor, "scored vocab"]:
    """The logits that predict an answer token, row after row: one pass, unembedded in predicting columns only.

    They stay on the model's device and in its precision, and gradients flow where they are on.
    """
    predicts = tokens.predicts
    columns = predicts.any(0).nonzero()[:, 0]
    logits = _logits_in(model, tokens, columns)
    return logits[predicts[:, columns].to(logits.device)]


def _logits_in(
    model: LanguageModel, tokens: Tokens, columns: Int[Tensor, " column"]
) -> Float[Tensor, "row column vocab"]:
    """The logits of these columns; by the model's own forward pass, with whatever it does behind the unembedding."""
    module = hf(model) if isinstance(model, TransformerBridge) else model
    check_ids(model, tokens.ids, tokens.fact_ids)
    device = device_of(module)
    ids, attention, columns = (part.to(device) for part in (tokens.ids, tokens.attention, columns))
    if keeps_logits(module):
        return module(input_ids=ids, attention_mask=attention, logits_to_keep=columns, use_cache=False).logits
    output = module(ids, attention_mask=attention)
    return (output if isinstance(output, Tensor) else output.logits)[:, columns]


def keeps_logits(model: LanguageModel) -> bool:
    """Whether the architecture unembeds chosen columns alone (`logits_to_keep`)."""
    module = hf(model) if isinstance(model, TransformerBridge) else model
    called = module.forward if isinstance(module, nn.Module) else module.__call__
    return "logits_to_keep" in inspect.signature(called).parameters


def check_ids(model: LanguageModel, ids: Int[Tensor, "row pos"], names: Sequence[str]) -> None:
    """Raises UserError: a token lies beyond the embedding, which was not resized when the tokenizer got it."""
    size, largest = vocabulary_of(model), int(ids.max()) if ids.numel() else 0
    if size is not None and largest >= size:
        row = int((ids == largest).any(1).nonzero()[0])
        words = getattr(model, "tokenizer", None)
        word = f" ({words.convert_ids_to_tokens(largest)!r})" if words is not None else ""
        model_name = getattr(getattr(model, "cfg", None), "model_name", "the model")
        raise UserError(
            f"{model_name}: fact {names[row]!r}: token {largest}{word} lies beyond the embedding of {size}; resize it "
            "(resize_token_embeddings) or take the tokenizer that the model was trained with"
        )


def in_chunks(model: LanguageModel, tokens: Tokens, batch_size: int) -> Iterator[tuple[range, Tokens]]:
    """The rows in their order, as many at a time as `batch_size` and the memory allow, and trimmed.

    What is in one pass are at most `TOKENS_AT_ONCE` tokens, padding among them, and `LOGITS_AT_ONCE` logits.

    Gives (places of the rows, the rows). A row that is too long by itself comes several times, and predicts each time
    the next of its columns: its blocks run again, its logits never stand in memory together.
    """
    most = max(1, LOGITS_AT_ONCE // (vocabulary_of(model) or 1))  # positions that are unembedded at a time
    check_batch_size(batch_size)
    first = 0
    while first < len(tokens):
        sizes = range(1, min(batch_size, len(tokens) - first, TOKENS_AT_ONCE) + 1)
        size = max(1, bisect_right(sizes, 1, key=lambda size: _share(tokens[first : first + size], most)))
        rows = range(first, first + size)
        for part in _by_columns(tokens[rows].trim(), most) if size == 1 else [tokens[rows].trim()]:
            yield rows, part
        first += size


def check_batch_size(batch_size: int) -> None:
    """Raises UserError: no number of rows that a pass can have."""
    check_whole("batch_size", batch_size, 1)


def _share(rows: Tokens, most: int) -> float:
    """How much these rows take of what a pass may have, if `most` positions are unembedded: it grows with every row."""
    unembedded = len(rows) * int(rows.predicts.any(0).sum())
    return max(unembedded / most, len(rows) * int(rows.attention.sum(1).max()) / TOKENS_AT_ONCE)


def rows_at_once(model: LanguageModel, batch_size: int, width: int) -> int:
    """How many rows of this width a pass may have of which the last position alone is looked at."""
    check_batch_size(batch_size)
    unembedded = 1 if keeps_logits(model) else width
    most = LOGITS_AT_ONCE // ((vocabulary_of(model) or 1) * unembedded)
    return max(1, min(batch_size, TOKENS_AT_ONCE // width, most))


def _by_columns(row: Tokens, count: int) -> Iterator[Tokens]:
    """One row, which predicts so many of its columns at a time."""
    columns = row.predicts[0].nonzero()[:, 0]
    for some in columns.split(count):
        predicts = torch.zeros_like(row.predicts)
        predicts[0, some] = True
        yield replace(row, predicts=predicts)


@contextmanager
def measuring(*models: LanguageModel | None) -> Iterator[None]:
    """No gradients and no dropout inside; every module's training flag is as before afterwards."""
    modules = [part for model in models if isinstance(model, nn.Module) for part in model.modules()]
    flags = [part.training for part in modules]

    def back() -> None:
        for part, flag in zip(modules, flags, strict=True):
            part.training = flag

    with undone(back), torch.no_grad():
        for part in modules:
            part.training = False
        yield


def log_probs(logits: Float[Tensor, "scored vocab"]) -> Float[Tensor, "scored vocab"]:
    """Log-probabilities in at least single precision.

    Raises:
        NotFiniteError: a logit is not a number.
    """
    if logits.isnan().any():
        raise NotFiniteError("the model gives logits that are not numbers (NaN); check its weights")
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


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


def embed(model: TransformerBridge, tokens: Tokens) -> Float[Tensor, "fact pos d_model"]:
    """The residual stream at the entry of the first block."""
    return _run_blocks(model, tokens, 0)[0][0]


def _run_blocks(model: TransformerBridge, tokens: Tokens, stop: int) -> tuple[list[Tensor], list[Arguments]]:
    """One forward pass that ends at the entry of block `stop`, or behind the last block."""
    check_ids(model, tokens.ids, tokens.fact_ids)
    entries: list[Tensor] = []
    arguments: list[Arguments] = []

    def at_entry(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entries.append(args[0] if args else kwargs["hidden_states"])
        if len(entries) > stop:
            raise Enough
        arguments.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    def at_end(_: nn.Module, __: object, output: Any) -> None:
        entries.append(_stream(output))
        raise Enough

    with unhooked(model.blocks), suppress(Enough):
        for block in model.blocks:
            block.register_forward_pre_hook(at_entry, with_kwargs=True)
        model.blocks[-1].register_forward_hook(at_end)
        hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention, use_cache=False)
    return entries, arguments


def _stream(output: Any) -> Tensor:
    """The residual stream in what a block gives back."""
    return output[0] if isinstance(output, tuple) else output


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
    known = _layout(model)
    rows, done = Rows(facts, len(trace.tokens)), dict[int, Any]()
    with hooked(model, hooks):
        for number in range(layer, len(model.blocks) if stop is None else stop):
            places, named = select(trace.arguments[number], number, known, rows, done)
            residual = _stream(model.blocks[number](residual, *places, **named))
    return residual


def _layout(model: TransformerBridge) -> Layout:
    """Where the rows lie in the arguments of the model's blocks."""

    def run(ids: Int[Tensor, "row pos"], attention: Int[Tensor, "row pos"]) -> list[Arguments]:
        nothing = torch.zeros_like(ids)
        tokens = Tokens(ids, attention, nothing.bool(), nothing.bool(), tuple(map(str, range(len(ids)))))
        return _run_blocks(model, tokens, len(model.blocks))[1]

    with torch.no_grad():
        return layout(model, run, device_of(hf(model)))


def unembed(model: TransformerBridge, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """What follows the last block: final norm, projection (OPT-350m), unembedding, and what the logits go through.

    Some multiply the logits (Cohere, Falcon H1) or divide them (Granite), Gemma 2 caps them.
    """
    module, stream = hf(model), residual[None]
    stream = model.ln_final(stream) if "ln_final" in model._modules else stream  # GPT-1 and OPT-350m have none
    project = getattr(getattr(module.base_model, "decoder", None), "project_out", None)
    logits = model.unembed(stream if project is None else project(stream))[0]
    for name, power in LOGIT_FACTORS.items():
        factor = getattr(module.config, name, None)
        logits = logits if factor is None else logits * factor**power
    cap = getattr(module.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.no_grad()
def check_replay(model: TransformerBridge, tokens: Tokens) -> float:
    """Largest difference between the logits of the plain forward pass and of record, resume and unembed.

    Of the shortest row and the longest, so that one is padded, and of one row alone; twice, in another order; as they
    are and with another residual stream at the first block, which blocks must not know from the recorded pass; then
    from the last block on as they are, which must not know the passes before.

    Raises:
        UserError: they are not the same computation, so this architecture cannot be dissected.
    """
    difference, largest = 0.0, 1.0
    by_length = tokens.attention.sum(1).argsort(stable=True).tolist()
    last = len(model.blocks) - 1
    most = max(1, LOGITS_AT_ONCE // (8 * (vocabulary_of(model) or 1)))  # positions a row
    for rows in ([by_length[0], by_length[-1]], [0]):  # two rows, of two lengths where there are, and one by itself
        some = _last_predicting(tokens[rows].trim(), most)
        trace = record(model, some)
        order = torch.arange(len(rows), device=some.ids.device).flip(0).repeat(2)
        mixed = some[order.tolist()]
        plain = scored_logits(model, mixed)
        with _entering(model):
            plain_moved = scored_logits(model, mixed)
        first = trace.entries[0][order]
        for layer, stream, want in (
            (0, first, plain), (0, _moved(first), plain_moved), (last, trace.entries[last][order], plain),
        ):  # fmt: skip
            ours = unembed(model, resume(model, trace, layer, stream, order)[mixed.predicts])
            difference = max(difference, float((ours - want).abs().max()))
            largest = max(largest, float(want.abs().max()))
    allowed = 1e3 * torch.finfo(plain.dtype).eps * largest
    if not difference <= allowed:
        raise UserError(
            f"{type(hf(model)).__name__}: running its blocks one by one gives other logits than the model itself "
            f"(largest difference {difference:.3g}); this architecture is not supported"
        )
    return difference


def _last_predicting(tokens: Tokens, most: int) -> Tokens:
    """The same rows, of which each predicts at its last positions alone: those that depend on all before."""
    behind = tokens.predicts.flip(1).cumsum(1).flip(1)
    return replace(tokens, predicts=tokens.predicts & (behind <= most))


def _moved(stream: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
    """Another residual stream of the same size."""
    return stream.roll(1, -1)


@contextmanager
def _entering(model: TransformerBridge) -> Iterator[None]:
    """The first block gets another residual stream than the embedding's."""

    def move(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (_moved(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": _moved(kwargs["hidden_states"])}

    with unhooked([model.blocks[0]]):
        model.blocks[0].register_forward_pre_hook(move, with_kwargs=True)
        yield
