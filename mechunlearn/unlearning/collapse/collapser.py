"""What CIR remembers from epoch to epoch: the directions to take out of each weight's gradient."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..loop.checkpoints import under
from .subspace import Collapse, Directions, Stream, collapse
from .taps import Tap, Taps, Watch

SMALL = 1024  # a matrix whose shorter side is at most this is decomposed whole
ITERATIONS = 8  # power iterations for a larger one


@runtime_checkable
class Recipe(Protocol):
    """The settings of CIR that matter here; see there."""

    @property
    def activations(self) -> int | float: ...
    @property
    def gradients(self) -> int | float: ...
    @property
    def collapse(self) -> str: ...
    @property
    def faithful(self) -> bool: ...


class TokenCollapser:
    """Collapses input vectors and output gradients token by token, by the directions of the epoch before."""

    def __init__(self, taps: Taps, recipe: Recipe, seed: int) -> None:
        self.taps, self.recipe = taps.taps, recipe
        self.streams: list[tuple[Stream | None, Stream | None]] = []
        for place, tap in enumerate(self.taps):
            asked = (recipe.activations, recipe.gradients)
            pair = [self._stream(n, width, tap, seed + place) for n, width in zip(asked, tap.widths, strict=True)]
            self.streams.append((pair[0], pair[1]))
            tap.watch = self._watch(*self.streams[-1])
        self.collects = any(stream is not None for pair in self.streams for stream in pair)
        self.ready = not self.collects

    def _stream(self, asked: int | float, width: int, tap: Tap, seed: int) -> Stream | None:
        count = directions(asked, width)
        if not count:
            return None
        hard = self.recipe.collapse == "hard"
        # The number counts the mean, which only the hard form takes as a direction of its own.
        return Stream(width, count - 1 if hard else count, tap.weight.detach(), centred=hard, seed=seed)

    @staticmethod
    def _watch(inputs: Stream | None, outputs: Stream | None) -> Watch:
        def watch(a: Float[Tensor, "token d_in"], g: Float[Tensor, "token d_out"]) -> None:
            if inputs is not None:
                inputs.add(a)
            if outputs is not None:
                outputs.add(g)

        return watch

    def before_step(self) -> None:
        """The first epoch only collects."""
        if not self.ready:
            for tap in self.taps:
                if tap.weight.grad is not None:
                    tap.weight.grad.zero_()

    def refit(self) -> None:
        """An epoch is over: what it showed is collapsed from now on."""
        for tap, (inputs, outputs) in zip(self.taps, self.streams, strict=True):
            tap.inputs, tap.outputs = self._collapse(inputs), self._collapse(outputs)
        self.ready = True

    def _collapse(self, stream: Stream | None) -> Collapse | None:
        # Blocks above those that the objective looks at see no token.
        if stream is None or stream.seen == 0:
            return None
        found = stream.directions()
        stream.reset()
        return collapse(found, self.recipe.collapse, sequential=self.recipe.faithful)

    def state(self) -> dict[str, Tensor]:
        """Streams and directions, by the place of their weight and their side."""
        found = {"ready": torch.tensor(self.ready)}
        for place, (tap, streams) in enumerate(zip(self.taps, self.streams, strict=True)):
            for side, change, stream in zip("ag", (tap.inputs, tap.outputs), streams, strict=True):
                if stream is not None:
                    found |= {f"{place}.{side}.stream.{name}": value for name, value in stream.state().items()}
                if isinstance(change, Collapse):
                    found |= {f"{place}.{side}.collapse.{name}": value for name, value in change.state().items()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.ready = bool(state["ready"])
        for place, (tap, streams) in enumerate(zip(self.taps, self.streams, strict=True)):
            changes = []
            for side, stream in zip("ag", streams, strict=True):
                if stream is not None:
                    stream.restore(under(state, f"{place}.{side}.stream."))
                held = f"{place}.{side}.collapse."
                changes.append(_collapse_of(state, held, tap.weight) if f"{held}basis" in state else None)
            tap.inputs, tap.outputs = changes


class WeightCollapser:
    """Takes the top singular directions of each weight's summed gradient out of the gradient (RepSelect's form)."""

    def __init__(self, taps: Taps, recipe: Recipe, seed: int) -> None:
        self.taps, self.recipe, self.seed = taps.taps, recipe, seed
        self.ready = False
        self.sums = [torch.zeros_like(tap.weight) for tap in self.taps]
        self.sides: list[tuple[Collapse, Collapse]] = []

    def before_step(self) -> None:
        """Sum the gradient up, then collapse it, or wipe it while there are no directions yet."""
        for place, tap in enumerate(self.taps):
            grad = tap.weight.grad
            if grad is None:
                continue
            self.sums[place] += grad
            if not self.ready:
                grad.zero_()
                continue
            rows, columns = self.sides[place]
            grad.copy_(columns(rows(grad.T).T))

    def refit(self) -> None:
        """An epoch is over: the directions of its summed gradient are collapsed from now on."""
        self.sides = [self._sides(tap, total) for tap, total in zip(self.taps, self.sums, strict=True)]
        for total in self.sums:
            total.zero_()
        self.ready = True

    def _sides(self, tap: Tap, total: Float[Tensor, "rows columns"]) -> tuple[Collapse, Collapse]:
        """What is taken out of the columns' space (of outputs, unless the weight is transposed) and of the rows'."""
        recipe, (d_in, d_out) = self.recipe, tap.widths
        counts = (directions(recipe.gradients, d_out), directions(recipe.activations, d_in))
        counts = counts[::-1] if tap.transposed else counts
        left, values, right = self._svd(total, max(*counts, 1))
        sides = []
        for vectors, count in zip((left, right), counts, strict=True):
            found = Directions(vectors[:, 0] * 0, vectors[:, :count], values[:count])
            sides.append(collapse(found, recipe.collapse, mean=False) if count else _nothing(vectors))
        return sides[0], sides[1]

    def _svd(self, matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        if min(matrix.shape) <= SMALL:
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            return left, values, right.T
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return torch.svd_lowrank(matrix, min(count + 8, *matrix.shape), niter=ITERATIONS)

    def state(self) -> dict[str, Tensor]:
        """Sums and directions."""
        found = {"ready": torch.tensor(self.ready)} | {f"{n}.sum": total for n, total in enumerate(self.sums)}
        for place, sides in enumerate(self.sides):
            for side, change in zip("rc", sides, strict=True):
                found |= {f"{place}.{side}.{name}": value for name, value in change.state().items()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.ready = bool(state["ready"])
        for place, total in enumerate(self.sums):
            total.copy_(state[f"{place}.sum"])
        self.sides = []
        for place in range(len(self.taps) if self.ready else 0):
            rows, columns = (_collapse_of(state, f"{place}.{side}.", self.sums[place]) for side in "rc")
            self.sides.append((rows, columns))


def directions(asked: int | float, width: int) -> int:
    """A number of directions, or a share of the width."""
    return min(round(asked * width) if 0 < asked < 1 else round(asked), width)


def _nothing(like: Float[Tensor, "width k"]) -> Collapse:
    return Collapse(like[:, :0], like.new_zeros(0))


def _collapse_of(state: dict[str, Tensor], prefix: str, like: Tensor) -> Collapse:
    return Collapse(**{name: value.to(like) for name, value in under(state, prefix).items()})
