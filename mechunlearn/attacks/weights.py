"""Which weights the attacks on weights change."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..models import Slot, slots

LITTLE = 0.5  # of the parameters inside the blocks: what reaches less says so


def matrices(model: TransformerBridge) -> tuple[Slot, ...]:
    """The weight matrices inside the blocks, in the order of the model; those of experts are stacked in one slot.

    Embedding and unembedding are left out, as they usually are when a model is quantised; so are norms and biases,
    which are stacked too where they belong to experts.
    """
    inside = (slot for slot in slots(model) if slot.layer >= 0 and not slot.name.endswith("bias"))
    return tuple(slot for slot in inside if slot.tensor.dim() in (2, 3))


def planes(slot: Slot) -> list[Float[Tensor, "output input"]]:
    """The matrix, or every expert's, with its inputs along the last axis; views of the weights."""
    inputs_last = slot.tensor.movedim(slot.features, -1)
    return list(inputs_last) if inputs_last.dim() == 3 else [inputs_last]


def share(model: TransformerBridge, chosen: Iterable[Slot]) -> float:
    """Which share of the parameters inside the blocks these are."""
    inside = sum(slot.tensor.numel() for slot in slots(model) if slot.layer >= 0)
    return sum(slot.tensor.numel() for slot in chosen if slot.layer >= 0) / inside
