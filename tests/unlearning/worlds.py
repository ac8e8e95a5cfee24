"""Made-up steps for the tests of losses.

A `World` says what the model and the start model give at every position of every row: logits and activations. `Made`
is a step in that world; it takes the place of forward passes and of nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechunlearn.facts import Tokens
from mechunlearn.unlearning.data.batches import Part, Piece, Sources, assemble
from mechunlearn.unlearning.data.rows import Rows
from mechunlearn.unlearning.step import Seen, Step

from .arithmetic import answer_tokens

VOCABULARY, WIDTH, LAYERS, ROWS = 11, 6, 4, 6
KINDS = ("forget", "alternative", "retain", "text")
HOOKS = tuple(f"blocks.{layer}.{hook}" for layer in range(LAYERS) for hook in ("hook_resid_post", "hook_mlp_out"))


@dataclass(frozen=True)
class Outputs:
    """What one model gives: logits [fact, pos, vocab], and activations [fact, pos, width] by hook."""

    logits: Tensor
    states: dict[str, Tensor]

    def leaves(self) -> list[Tensor]:
        return [self.logits, *self.states.values()]


@dataclass(frozen=True)
class World:
    sources: Sources
    now: dict[str, Outputs]
    before: dict[str, Outputs]

    def rows(self, kind: str) -> Rows:
        return getattr(self.sources, kind)

    def change(self, how: Callable[[Rows], Rows]) -> "World":
        """The same world with the rows of every kind changed."""
        present = {kind: how(self.rows(kind)) for kind in self.now}
        return replace(self, sources=replace(self.sources, **present))

    def map(self, how: Callable[[Tensor], Tensor], both: bool = True) -> "World":
        """The same world with everything that the models give changed; or only what the changing model gives."""

        def through(side: dict[str, Outputs]) -> dict[str, Outputs]:
            return {
                kind: Outputs(how(found.logits), {hook: how(state) for hook, state in found.states.items()})
                for kind, found in side.items()
            }

        return replace(self, now=through(self.now), before=through(self.before) if both else self.before)

    def leaves(self) -> list[Tensor]:
        """All that the changing model gives, from now on with gradients."""
        return [leaf.requires_grad_() for found in self.now.values() for leaf in found.leaves()]

    def pieces(self, order: Sequence[int] | None = None, count: int = 1, progress: float = 0.0) -> list[Piece]:
        index = torch.arange(len(self.sources.forget)) if order is None else torch.tensor(order)
        drawn = {kind: index for kind in self.now if kind != "alternative"}
        return assemble(self.sources, drawn, count, progress)

    def step(self, order: Sequence[int] | None = None, progress: float = 0.0, seed: int = 0) -> "Made":
        return Made(self, self.pieces(order, progress=progress)[0], seed)


class Made(Step):
    """A step whose forward passes were made up: rows are looked up by their fact ids."""

    def __init__(self, world: World, piece: Piece, seed: int = 0) -> None:
        self.world, self._parts, self.progress, self.seed = world, piece.parts, piece.progress, seed
        self.n_layers, self.d_model = LAYERS, WIDTH

    def see(self, kind: str, states: Sequence[str] = (), logits: bool = True) -> Seen:
        return self._seen(self.world.now[kind], self._parts[kind], states, logits)

    def start(self, kind: str, states: Sequence[str] = (), logits: bool = True) -> Seen:
        with torch.no_grad():
            return self._seen(self.world.before[kind], self._parts[kind], states, logits)

    def _seen(self, outputs: Outputs, part: Part, states: Sequence[str], logits: bool) -> Seen:
        rows, width = [int(name) for name in part.tokens.fact_ids], part.tokens.ids.shape[1]
        scored = outputs.logits[rows, :width][part.tokens.predicts] if logits else None
        return Seen(part, scored, {hook: outputs.states[hook][rows, :width] for hook in states})


def random_rows(generator: torch.Generator, count: int = ROWS) -> Rows:
    """Prompts of 1 to 4 tokens and answers of 1 to 4, right-padded; about every other row begins with a BOS."""
    prompts, answers = (torch.randint(1, 5, (count,), generator=generator) for _ in range(2))
    width = int((prompts + answers).max()) + 1
    place = torch.arange(width)[None, :]
    attention = place < (prompts + answers)[:, None]
    is_answer = attention & (place >= prompts[:, None])
    ids = torch.randint(0, VOCABULARY, (count, width), generator=generator)
    names = tuple(str(row) for row in range(count))
    valid = attention.clone()
    valid[:, 0] &= torch.rand(count, generator=generator) < 0.5
    return Rows(
        Tokens(ids, attention.long(), is_answer.roll(-1, dims=1), is_answer, names),
        valid,
        (torch.arange(count),),
        0.5 + torch.rand(count, generator=generator),
        torch.randint(-1, 3, (count,), generator=generator),
    )


def random_world(seed: int, text: bool = True, plain: bool = False, count: int = ROWS) -> World:
    """In fp64. `plain` gives every row the weight 1."""
    generator = torch.Generator().manual_seed(seed)
    kinds = KINDS if text else KINDS[:3]
    found = {kind: random_rows(generator, count) for kind in kinds}
    if plain:
        found = {kind: replace(rows, weight=torch.ones(count)) for kind, rows in found.items()}

    def outputs(rows: Rows) -> Outputs:
        shape = rows.tokens.ids.shape

        def normal(width: int) -> Tensor:
            return torch.randn(*shape, width, generator=generator, dtype=torch.float64) * 2

        return Outputs(normal(VOCABULARY), {hook: normal(WIDTH) for hook in HOOKS})

    now, before = ({kind: outputs(rows) for kind, rows in found.items()} for _ in range(2))
    for kind in ("forget", "alternative"):
        found[kind] = replace(found[kind], start_nll=start_nll(found[kind].tokens, before[kind].logits))
    return World(Sources(**found), now, before)


def start_nll(tokens: Tokens, logits: Tensor) -> Tensor:
    summed = [sum(nll for _, nll in answer_tokens(tokens, logits, row)) for row in range(len(tokens))]
    return torch.tensor(summed, dtype=torch.float64)


def at_start(world: World) -> World:
    """The world before the first step: both models give the same."""

    def copied(outputs: Outputs) -> Outputs:
        return Outputs(outputs.logits.clone(), {hook: state.clone() for hook, state in outputs.states.items()})

    return replace(world, now={kind: copied(outputs) for kind, outputs in world.before.items()})


def padded(piece: Piece, columns: int) -> Piece:
    """The same piece with columns on the right that hold ids which no vocabulary has."""

    def wider(part: Tensor, fill: int | bool) -> Tensor:
        return torch.cat([part, torch.full((len(part), columns), fill, dtype=part.dtype)], dim=1)

    def pad(part: Part) -> Part:
        old = part.tokens
        tokens = Tokens(
            torch.where(wider(old.attention, 0).bool(), wider(old.ids, -100), -100),
            wider(old.attention, 0), wider(old.predicts, False), wider(old.answers, False), old.fact_ids,
        )  # fmt: skip
        return replace(part, tokens=tokens, valid=wider(part.valid, False))

    return replace(piece, parts={kind: pad(part) for kind, part in piece.parts.items()})
