"""How far unlearning moved every weight matrix, and in how many directions.

Matrices only: biases and the weights of norms are left out. Projections that a checkpoint stores fused (query, key and
value; gate and up) count as the parts that TransformerLens computes with. Embedding and unembedding that are tied are
one matrix with both roles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..models import Source, compare, matched, slots

COLUMNS = (
    *("name", "layer", "role", "change", "relative_change", "spectral_norm", "relative_spectral_norm"),
    *("stable_rank", "effective_rank"),
)
SPECTRUM = ("name", "layer", "role", "index", "singular_value")


def weight_changes(before: Source, after: Source) -> pd.DataFrame:
    """Size and shape of ΔW = after − before, for every matrix that differs. Models are anything that `load` takes.

    All is computed in float64 from the singular values σ₁ ≥ σ₂ ≥ … of ΔW. Weights that changed say nothing about
    whether the change matters: restore them (`dissect`) to see that.

    Returns:
        One row a matrix, in the model's order: `name` (Hugging Face), `layer` (−1 outside the blocks), `role`, `change`
        ‖ΔW‖_F, `relative_change` ‖ΔW‖_F/‖W‖_F, `spectral_norm` σ₁, `relative_spectral_norm` σ₁(ΔW)/σ₁(W),
        `stable_rank` ‖ΔW‖_F²/σ₁², `effective_rank` exp(−Σ p log p) with p = σ/Σσ (Roy & Vetterli, EUSIPCO 2007).
        A random change of full rank has a high rank by either; a single direction has 1. No rows where no matrix
        differs.

    Raises:
        UserError: the models cannot be compared.
    """
    rows = []
    for place, weight, change in _changed(before, after):
        sigma, largest = singular_values(change), singular_values(weight)[0]
        share = sigma / sigma.sum()
        rows.append(
            place
            | {
                "change": float(sigma.norm()),
                "relative_change": float(sigma.norm() / torch.linalg.vector_norm(weight)),
                "spectral_norm": float(sigma[0]),
                "relative_spectral_norm": float(sigma[0] / largest),
                "stable_rank": float((sigma / sigma[0]).square().sum()),
                "effective_rank": float(torch.special.entr(share).sum().exp()),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def change_spectra(before: Source, after: Source) -> pd.DataFrame:
    """The singular values of ΔW = after − before, for every matrix that differs. Models as `load` takes them.

    Returns:
        One row a singular value: `name, layer, role` as `weight_changes`, `index` (0 is the largest), `singular_value`.

    Raises:
        UserError: the models cannot be compared.
    """
    parts = []
    for place, _, change in _changed(before, after):
        sigma = singular_values(change).cpu().numpy()
        parts.append(pd.DataFrame(place | {"index": range(len(sigma)), "singular_value": sigma}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(SPECTRUM))


def singular_values(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, " smaller"]:
    """Singular values, largest first, in float64.

    They are roots of the eigenvalues of the smaller Gram matrix: on the matrices of an 8B model many times faster than
    a decomposition of the matrix itself, and exact to 1e-8 of the largest, which is finer than the weights' rounding.
    """
    matrix = matrix.detach().double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def _changed(
    before: Source, after: Source
) -> Iterator[tuple[dict[str, Any], Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]]:
    """Name, layer and role, W and ΔW of every matrix that differs."""
    before, after = matched(before, after)
    compared = compare(before, after).frame
    pairs = zip(compared.to_dict("records"), slots(before), slots(after), strict=True)
    for row, ours, theirs in pairs:
        if row["differs"] and ours.tensor.dim() == 2:
            weight = ours.tensor.detach().double()
            place = {name: row[name] for name in ("name", "layer", "role")}
            yield place, weight, theirs.tensor.detach().double() - weight
