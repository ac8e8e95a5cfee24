"""What one unlearning step sees: rows to forget, as many to retain, and optionally general text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...facts import Tokens
from .rows import Rows

Drawn = dict[str, Int[Tensor, " row"]]
"""The rows of one optimiser step, by kind ("forget", "retain", "text")."""


@dataclass(frozen=True)
class Sources:
    """Where the batches come from. `alternative` belongs to `forget` row by row."""

    forget: Rows
    retain: Rows | None = None
    alternative: Rows | None = None
    text: Rows | None = None

    def with_start(self, start: TransformerBridge, size: int) -> Sources:
        """Forget and alternative rows with their likelihood under the start model."""
        alternative = None if self.alternative is None else self.alternative.with_start(start, size)
        return replace(self, forget=self.forget.with_start(start, size), alternative=alternative)


@dataclass(frozen=True)
class Divisors:
    """What the means of a loss divide by.

    A mean over an optimiser step that is computed in k pieces is not the mean of the pieces' means when these
    hold different numbers of tokens. Each piece therefore divides its sums by the whole step's counts over k;
    averaging the k pieces then gives exactly the value and the gradient of the undivided step.
    """

    facts: float
    answers: float
    tokens: float


@dataclass(frozen=True)
class Part:
    """Rows of one kind in a piece of a batch; the fields are those of `Rows`."""

    tokens: Tokens
    valid: Bool[Tensor, "fact pos"]
    weight: Float[Tensor, " fact"]
    fold: Int[Tensor, " fact"]
    divisors: Divisors
    start_nll: Float[Tensor, " fact"] | None = None

    def to(self, device: torch.device | str) -> Part:
        moved = {
            field.name: value.to(device) for field in fields(self) if hasattr(value := getattr(self, field.name), "to")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Piece:
    """What goes through the model at once; `progress` is the share of the steps that is done."""

    parts: dict[str, Part]
    progress: float

    def to(self, device: torch.device | str) -> Piece:
        return replace(self, parts={kind: part.to(device) for kind, part in self.parts.items()})

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model, padding not counted."""
        return sum(int(part.tokens.attention.sum()) for part in self.parts.values())


def draw(sources: Sources, size: int, seed: int) -> Iterator[Drawn]:
    """Endless steps of `size` forget rows and as many retain rows and passages.

    Every row comes once before any of its group comes again. What is drawn of a kind in the n-th step depends on the
    rows of that kind and the seed alone, so that methods with and without retain data forget in the same order.
    """
    kinds = {"forget": sources.forget, "retain": sources.retain, "text": sources.text}
    streams = {
        kind: _mixed(rows.groups, size, torch.Generator().manual_seed(len(kinds) * seed + place))
        for place, (kind, rows) in enumerate(kinds.items())
        if rows is not None
    }
    while True:
        yield {kind: next(stream) for kind, stream in streams.items()}


class Draws:
    """The rows of any step, by its number from 0: cheap in order, drawn anew from the first where a run goes back."""

    def __init__(self, sources: Sources, size: int, seed: int) -> None:
        self._again = partial(draw, sources, size, seed)
        self._stream, self._next = self._again(), 0

    def __getitem__(self, step: int) -> Drawn:
        if step < self._next:
            self._stream, self._next = self._again(), 0
        found = next(itertools.islice(self._stream, step - self._next, None))
        self._next = step + 1
        return found


def assemble(sources: Sources, drawn: Drawn, count: int, progress: float = 0.0) -> list[Piece]:
    """The rows of a step in `count` pieces, none of them empty."""
    everything = {kind: (getattr(sources, kind), index) for kind, index in drawn.items()}
    if sources.alternative is not None:
        everything["alternative"] = (sources.alternative, drawn["forget"])
    pieces: list[dict[str, Part]] = [{} for _ in range(count)]
    for kind, (rows, index) in everything.items():
        divisors = Divisors(
            facts=len(index) / count,
            answers=float(rows.tokens.predicts[index].sum()) / count,
            tokens=float(rows.valid[index].sum()) / count,
        )
        for place, parts in enumerate(pieces):
            parts[kind] = _take(rows, index[place::count], divisors)
    return [Piece(parts, progress) for parts in pieces]


def _take(rows: Rows, index: Int[Tensor, " row"], divisors: Divisors) -> Part:
    """These rows only, without the columns that are padding in all of them."""
    tokens = rows.tokens[index.tolist()].trim()
    return Part(
        tokens,
        rows.valid[index, : tokens.ids.shape[1]],
        rows.weight[index],
        rows.fold[index],
        divisors,
        None if rows.start_nll is None else rows.start_nll[index],
    )


def _shuffles(count: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _mixed(
    groups: Sequence[Int[Tensor, " _"]], size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " size"]]:
    """Rows of each group in turn, every group shuffled by itself."""
    streams = [_shuffles(len(group), generator) for group in groups]
    turns = itertools.cycle(zip(groups, streams, strict=True))
    while True:
        yield torch.stack([group[next(stream)] for group, stream in itertools.islice(turns, size)])
