"""Mean and principal directions of vectors that pass by in batches, and their removal; never all vectors at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

OVERSAMPLING = 8  # directions that the stream follows beyond those asked for
COLLAPSES = ("hard", "soft", "quadratic")


@dataclass(frozen=True)
class Directions:
    """Unit mean, orthonormal principal directions in falling order, and the singular value of each.

    The singular value is the root mean square of the vectors along the direction (about their mean, if centred).
    """

    mean: Float[Tensor, " width"]
    components: Float[Tensor, "width k"]
    values: Float[Tensor, " k"]


class Stream:
    """Sees every vector once. Up to four times the directions asked for, the full covariance is kept; wider vectors
    are sketched: with C their covariance and Q an orthonormal basis of a few columns, only C·Q is summed up, and
    C ≈ (CQ)(QᵀCQ)⁺(CQ)ᵀ (Tropp et al., arXiv 1706.05736). Q is what the pass before found, so that passes over
    slowly changing data are the steps of a subspace iteration.

    Args:
        width: of the vectors.
        count: principal directions wanted.
        like: a tensor with the dtype and the device to work in.
        centred: about the mean (covariance) or not (second moment).
        seed: of the first Q.
    """

    def __init__(self, width: int, count: int, like: Tensor, centred: bool = True, seed: int = 0) -> None:
        self.width, self.count, self.centred = width, count, centred
        followed = min(count + OVERSAMPLING, width)
        self.basis: Float[Tensor, "width q"] | None = None
        if width > 4 * followed:
            start = torch.randn(width, followed, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            self.basis = torch.linalg.qr(start).Q.to(like)
        self._like = like
        self.reset()

    def reset(self) -> None:
        """Begin the next pass; the basis of the last is kept."""
        columns = self.width if self.basis is None else self.basis.shape[1]
        self.seen = 0
        self.shift = self._like.new_zeros(self.width)
        self.sum = self._like.new_zeros(self.width)
        self.moment = self._like.new_zeros(self.width, columns)

    def add(self, vectors: Float[Tensor, "token width"]) -> None:
        """Let some vectors pass. They are summed about the first batch's mean, which keeps fp32 exact enough."""
        if not len(vectors):
            return
        if self.seen == 0 and self.centred:
            self.shift = vectors.mean(0)
        moved = vectors - self.shift
        self.seen += len(vectors)
        self.sum += moved.sum(0)
        self.moment += moved.T @ (moved if self.basis is None else moved @ self.basis)

    def directions(self) -> Directions:
        """What the vectors since the last reset tell; the basis follows."""
        offset = self.sum / self.seen
        mean = self.shift + offset
        moment = self.moment / self.seen
        if self.centred:
            moment = moment - torch.outer(offset, offset if self.basis is None else offset @ self.basis)
        if self.basis is None:
            values, vectors = torch.linalg.eigh(moment)
            values, vectors = values.flip(0), vectors.flip(1)
        else:
            values, vectors = _nystrom(self.basis, moment)
            self.basis = vectors
        return Directions(
            mean / mean.norm().clamp_min(torch.finfo(mean.dtype).tiny),
            vectors[:, : self.count],
            values[: self.count].clamp_min(0).sqrt(),
        )

    def state(self) -> dict[str, Tensor]:
        """All that the next `add` depends on."""
        found = {"shift": self.shift, "sum": self.sum, "moment": self.moment, "seen": torch.tensor(self.seen)}
        return found if self.basis is None else found | {"basis": self.basis}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.shift, self.sum, self.moment = (state[name].to(self._like) for name in ("shift", "sum", "moment"))
        self.seen = int(state["seen"])
        if "basis" in state:
            self.basis = state["basis"].to(self._like)


def _nystrom(
    basis: Float[Tensor, "width q"], image: Float[Tensor, "width q"]
) -> tuple[Float[Tensor, " q"], Float[Tensor, "width q"]]:
    """Eigenvalues and eigenvectors of C ≈ Y(QᵀY)⁺Yᵀ from Y = CQ, in fp64 with the usual small shift."""
    q, y = basis.double(), image.double()
    shift = math.sqrt(len(y)) * torch.finfo(torch.float32).eps * torch.linalg.matrix_norm(y).item() + 1e-300
    y = y + shift * q
    core = q.T @ y
    root = torch.linalg.cholesky((core + core.T) / 2)
    vectors, roots, _ = torch.linalg.svd(torch.linalg.solve_triangular(root, y.T, upper=False).T, full_matrices=False)
    return (roots.square() - shift).to(basis.dtype), vectors.to(basis.dtype)


@dataclass(frozen=True)
class Collapse:
    """x ← x − P·diag(strength)·Pᵀx, one direction after the other where `first` is set.

    `first` is a unit vector that is projected out before; `basis` has orthonormal columns.
    """

    basis: Float[Tensor, "width k"]
    strength: Float[Tensor, " k"]
    first: Float[Tensor, " width"] | None = None

    def state(self) -> dict[str, Tensor]:
        """The tensors that make it, by the names of the arguments."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __call__(self, vectors: Float[Tensor, "token width"]) -> Float[Tensor, "token width"]:
        if self.first is not None:
            vectors = vectors - torch.outer(vectors @ self.first, self.first)
        return vectors - (vectors @ self.basis * self.strength) @ self.basis.T


def collapse(found: Directions, kind: str, mean: bool = True, sequential: bool = False) -> Collapse:
    """What removes these directions.

    Args:
        kind: "hard" removes them whole; "soft" and "quadratic" shrink each to s_min/s and (s_min/s)² of itself,
            s its singular value and s_min the smallest of them.
        mean: also remove the direction of the mean (hard only).
        sequential: remove the mean first and then the components, which are not orthogonal to it, so that a residue
            along the mean remains (as published, arXiv 2509.11816); else both at once, by an orthonormal basis.
    """
    if kind != "hard":
        ratio = found.values[-1] / found.values.clamp_min(torch.finfo(found.values.dtype).tiny)
        return Collapse(found.components, 1 - (ratio if kind == "soft" else ratio.square()))
    ones = torch.ones_like(found.values)
    if not mean:
        return Collapse(found.components, ones)
    if sequential:
        return Collapse(found.components, ones, first=found.mean)
    basis = torch.linalg.qr(torch.cat([found.mean[:, None], found.components], dim=1)).Q
    return Collapse(basis, basis.new_ones(basis.shape[1]))
