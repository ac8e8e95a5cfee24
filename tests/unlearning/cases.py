"""Made-up steps for the tests of losses, and every loss written out a second time, one token after the other.

A `World` says what the model and the start model give at every position of every row: logits and activations. `Made`
is a step in that world; it takes the place of forward passes and of nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechunlearn.facts import Tokens
from mechunlearn.unlearning import METHODS, Method
from mechunlearn.unlearning.batches import Part, Piece, Sources, assemble
from mechunlearn.unlearning.rows import Rows
from mechunlearn.unlearning.step import Seen, Step

VOCABULARY, WIDTH, LAYERS, ROWS = 11, 6, 4, 6
KINDS = ("forget", "alternative", "retain", "text")
HOOKS = tuple(f"blocks.{layer}.{hook}" for layer in range(LAYERS) for hook in ("hook_resid_post", "hook_mlp_out"))

# Methods that are a loss; CIR's step is not its loss's gradient.
LOSSES = {name: method for name, method in METHODS.items() if not method.sets_step_size}


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


# The formulas, from plain numbers: no masks, no gather, no reductions over axes.


def answer_tokens(tokens: Tokens, logits: Tensor, row: int) -> list[tuple[int, float]]:
    """Position that predicts and −log p, for every answer token of a row."""
    found = []
    for place in range(tokens.ids.shape[1]):
        if tokens.answers[row, place]:
            line = logits[row, place - 1].tolist()
            top = max(line)
            total = top + math.log(sum(math.exp(value - top) for value in line))
            found.append((place - 1, total - line[int(tokens.ids[row, place])]))
    return found


def over_answers(world: World, kind: str, value: Callable[[int, int, float], float]) -> float:
    """Weighted mean over answer tokens of value(row, position that predicts, −log p)."""
    rows, total, count = world.rows(kind), 0.0, 0
    for row in range(len(rows)):
        for place, nll in answer_tokens(rows.tokens, world.now[kind].logits, row):
            total += float(rows.weight[row]) * value(row, place, nll)
            count += 1
    return total / count


def over_facts(world: World, kind: str, value: Callable[[int], float]) -> float:
    rows = world.rows(kind)
    return sum(float(rows.weight[row]) * value(row) for row in range(len(rows))) / len(rows)


def over_tokens(world: World, kind: str, value: Callable[[int, int], float]) -> float:
    """Weighted mean over real tokens that are no BOS, of value(row, position)."""
    rows, total, count = world.rows(kind), 0.0, 0
    for row in range(len(rows)):
        for place in range(rows.valid.shape[1]):
            if rows.valid[row, place]:
                total += float(rows.weight[row]) * value(row, place)
                count += 1
    return total / count


def cross_entropy(world: World, kind: str) -> float:
    return over_answers(world, kind, lambda row, place, nll: nll)


def summed(world: World, kind: str, row: int) -> tuple[float, int]:
    """−log p of a whole answer, and its length."""
    found = answer_tokens(world.rows(kind).tokens, world.now[kind].logits, row)
    return sum(nll for _, nll in found), len(found)


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > 0 else value - math.log1p(math.exp(value))


def distribution(line: Tensor) -> list[float]:
    values = line.tolist()
    found = [math.exp(value - max(values)) for value in values]
    return [value / sum(found) for value in found]


def kl(world: World, kind: str) -> float:
    def one(row: int, place: int, nll: float) -> float:
        theirs = distribution(world.before[kind].logits[row, place])
        ours = distribution(world.now[kind].logits[row, place])
        return sum(p * math.log(p / q) for p, q in zip(theirs, ours, strict=True))

    return over_answers(world, kind, one)


def vector(world: World, side: str, kind: str, hook: str, row: int, place: int) -> list[float]:
    return getattr(world, side)[kind].states[hook][row, place].tolist()


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def length(one: list[float]) -> float:
    return math.sqrt(dot(one, one))


def distance(one: list[float], other: list[float]) -> float:
    return length([a - b for a, b in zip(one, other, strict=True)])


def cosine(one: list[float], other: list[float]) -> float:
    return dot(one, other) / (length(one) * length(other))


def moved(world: World, kind: str, hook: str, power: int, scale: float = 1.0) -> float:
    """Mean over tokens of ‖h − h⁰‖^power · scale."""

    def one(row: int, place: int) -> float:
        pair = [vector(world, side, kind, hook, row, place) for side in ("now", "before")]
        return distance(*pair) ** power * scale

    return over_tokens(world, kind, one)


def residual(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def forget_written_out(method: Method, world: World, seed: int = 0) -> float:
    """The forget term as its paper states it, in a model of four blocks."""
    beta = getattr(method, "beta", math.nan)

    def risen(kind: str, row: int) -> float:
        known = world.rows(kind).start_nll
        assert known is not None
        return summed(world, kind, row)[0] - float(known[row])

    def dialled(row: int, place: int, nll: float) -> float:
        line = world.before["forget"].logits[row, place].clone()
        line[int(world.rows("forget").tokens.ids[row, place + 1])] -= beta
        ours = distribution(world.now["forget"].logits[row, place])
        return -sum(p * math.log(q) for p, q in zip(distribution(line), ours, strict=True))

    match method.name:
        case "gradient_ascent" | "gradient_difference":
            return -cross_entropy(world, "forget")
        case "wga":
            return -over_answers(world, "forget", lambda row, place, nll: math.exp(-nll) ** beta * nll)
        case "npo":
            return over_facts(world, "forget", lambda row: -2 / beta * log_sigmoid(beta * risen("forget", row)))
        case "simnpo":

            def simple(row: int) -> float:
                total, count = summed(world, "forget", row)
                return -2 / beta * log_sigmoid(beta * (total / count - getattr(method, "delta")))  # noqa: B009

            return over_facts(world, "forget", simple)
        case "dpo" | "idk_dpo":
            return over_facts(
                world,
                "forget",
                lambda row: -2 / beta * log_sigmoid(beta * (risen("forget", row) - risen("alternative", row))),
            )
        case "idk":
            return cross_entropy(world, "alternative")
        case "undial":
            return over_answers(world, "forget", dialled)
        case "rmu":
            return steered(method, world, seed)
        case "circuit_breakers":  # in front of blocks 10 / 32 · 4 ≈ 1 and 20 / 32 · 4 ≈ 3
            return mean([turned(world, residual(layer)) for layer in (0, 2)])
        case "breaking":  # blocks from 6 / 32 · 4 ≈ 1 to before 12 / 32 · 4 ≈ 2
            return broken(method, world)
    raise NotImplementedError(f"write out the forget term of {method.name}")


def steered(method: Method, world: World, seed: int) -> float:
    """Behind block 7 / 32 · 4 ≈ 1."""
    normal = getattr(method, "entries") == "normal"  # noqa: B009
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn if normal else torch.rand
    drawn = [draw(WIDTH, generator=generator, dtype=torch.float64).tolist() for _ in range(4)]
    steering = getattr(method, "steering")  # noqa: B009

    def one(row: int, place: int) -> float:
        fold = int(world.rows("forget").fold[row])
        chosen = drawn[0] if getattr(method, "vectors") == "shared" else drawn[fold + 1]  # noqa: B009
        goal = [steering * value / length(chosen) for value in chosen]
        return distance(vector(world, "now", "forget", residual(1), row, place), goal) ** 2 / WIDTH

    return over_tokens(world, "forget", one)


def turned(world: World, hook: str) -> float:
    def one(row: int, place: int) -> float:
        pair = [vector(world, side, "forget", hook, row, place) for side in ("now", "before")]
        return max(0.0, cosine(*pair))

    return over_tokens(world, "forget", one)


def broken(method: Method, world: World) -> float:
    form, where = getattr(method, "form"), getattr(method, "where")  # noqa: B009
    floor, power = getattr(method, "floor"), getattr(method, "power")  # noqa: B009
    hook = "blocks.1.hook_mlp_out" if where == "mlp_output" else residual(0)

    def usual(row: int) -> float:
        valid = world.rows("forget").valid[row].tolist()
        return mean([length(vector(world, "before", "forget", hook, row, p)) for p, real in enumerate(valid) if real])

    def one(row: int, place: int) -> float:
        now, before = (vector(world, side, "forget", hook, row, place) for side in ("now", "before"))
        kept = {
            "dot": lambda: dot(now, before) / usual(row) ** 2,
            "norm": lambda: length(now) / usual(row),
            "cosine": lambda: cosine(now, before),
        }[form]()
        return max(floor, kept) ** power

    return over_tokens(world, "forget", one)


def retain_written_out(method: Method, world: World, kind: str) -> float:
    match method.retain:
        case "cross_entropy":
            return cross_entropy(world, kind)
        case "kl":
            return kl(world, kind)
        case "representation":
            return mean([moved(world, kind, residual(layer), 2, 1 / WIDTH) for layer in range(LAYERS)])
        case "own" if method.name == "rmu":
            return moved(world, kind, residual(1), 2, 1 / WIDTH)
        case "own" if method.name == "circuit_breakers":
            return mean([moved(world, kind, residual(layer), 1) for layer in range(LAYERS)])
    raise NotImplementedError(f"write out the retain term {method.retain} of {method.name}")


def written_out(method: Method, world: World, progress: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Loss and parts."""
    parts = {"forget": forget_written_out(method, world, seed)}
    if method.retain_weight:
        parts |= {kind: retain_written_out(method, world, kind) for kind in ("retain", "text") if kind in world.now}
    down, up = method.forget_weight, method.retain_weight
    if method.name == "circuit_breakers":
        down, up = down * (1 - progress / 2), up * progress / 2
    loss = down * parts["forget"] + up * (parts.get("retain", 0.0) + method.text_weight * parts.get("text", 0.0))
    return {"loss": loss, **parts}


def descent(world: World, kind: str, value: Callable[[int, int, float], float]) -> Tensor:
    """Gradient in the logits of Σ value(row, position, −log p)·(−log p), the values held fixed."""
    rows, logits = world.rows(kind), world.now[kind].logits.detach()
    found = torch.zeros_like(logits)
    for row in range(len(rows)):
        for place, nll in answer_tokens(rows.tokens, logits, row):
            line = torch.tensor(distribution(logits[row, place]), dtype=torch.float64)
            line[int(rows.tokens.ids[row, place + 1])] -= 1
            found[row, place] = value(row, place, nll) * line
    return found


def forget_gradient(method: Method, world: World) -> tuple[float, dict[str, Tensor]]:
    """The forget term, and its gradient in the logits of every kind."""
    leaves = {kind: outputs.logits.requires_grad_() for kind, outputs in world.now.items()}
    value = method.forget(world.step())
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return value.item(), dict(zip(leaves, found, strict=True))


def risen_by(world: World, kind: str, by: Sequence[float]) -> World:
    """The same world, told that each answer's −log p was lower by this much under the start model."""
    rows = world.rows(kind)
    now = torch.tensor([summed(world, kind, row)[0] for row in range(len(rows))], dtype=torch.float64)
    known = replace(rows, start_nll=now - torch.tensor(by, dtype=torch.float64))
    return replace(world, sources=replace(world.sources, **{kind: known}))
