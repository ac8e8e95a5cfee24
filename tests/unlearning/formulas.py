"""Every loss and its gradient written out a second time, one token after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mechunlearn.unlearning import METHODS, RMU, Method

from .arithmetic import answer_tokens, cosine, distance, distribution, dot, length, log_sigmoid, mean
from .worlds import LAYERS, WIDTH, World

LENGTH = 6.5  # what RMU steers to, which a run measures
# Methods that are a loss; CIR's step is not its loss's gradient.
LOSSES = {
    name: replace(method, steering=LENGTH) if isinstance(method, RMU) else method
    for name, method in METHODS.items()
    if not method.sets_step_size
}


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


def kl(world: World, kind: str) -> float:
    def one(row: int, place: int, nll: float) -> float:
        theirs = distribution(world.before[kind].logits[row, place])
        ours = distribution(world.now[kind].logits[row, place])
        return sum(p * math.log(p / q) for p, q in zip(theirs, ours, strict=True))

    return over_answers(world, kind, one)


def vector(world: World, side: str, kind: str, hook: str, row: int, place: int) -> list[float]:
    return getattr(world, side)[kind].states[hook][row, place].tolist()


def moved(world: World, kind: str, hook: str, power: int, scale: float = 1.0) -> float:
    """Mean over tokens of ‖h − h⁰‖^power · scale."""

    def one(row: int, place: int) -> float:
        pair = [vector(world, side, kind, hook, row, place) for side in ("now", "before")]
        return distance(*pair) ** power * scale

    return over_tokens(world, kind, one)


def residual(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


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

    def one(row: int, place: int) -> float:
        fold = int(world.rows("forget").fold[row])
        chosen = drawn[0] if getattr(method, "vectors") == "shared" else drawn[fold + 1]  # noqa: B009
        goal = [LENGTH * value / length(chosen) for value in chosen]
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
