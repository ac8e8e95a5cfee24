"""Which weights the attacks on weights change."""

from __future__ import annotations

from transformer_lens.model_bridge import TransformerBridge

from ..models import Slot, slots


def matrices(model: TransformerBridge) -> tuple[Slot, ...]:
    """The weight matrices inside the blocks, in the order of the model.

    Embedding and unembedding are left out, as they usually are when a model is quantised; so are norms and biases.
    """
    return tuple(slot for slot in slots(model) if slot.layer >= 0 and slot.tensor.dim() == 2)
