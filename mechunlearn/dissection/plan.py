"""From sites and windows to arms: what each patch does to the recipient, at the least cost for the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import BlockBridge, ParallelBlockBridge

from ..models import Slot
from ..models.forward import Trace, donor_value
from ..sites import Site
from .arms import Arm, Write
from .windows import Family

POSITIONWISE = ("hook_attn_out", "hook_mlp_out", "mlp.hook_post", "mlp.hook_pre", "mlp.hook_pre_linear", "attn.hook_z")


@dataclass(frozen=True)
class Patch:
    """A site in a window; (-1, -1) for the sites outside the blocks. With `position`, at that token alone."""

    site: Site
    first: int
    last: int
    position: int | None = None

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    def slots(self, different: frozenset[str]) -> tuple[Slot, ...]:
        """The parameters to put back: those of the window that differ at all. The others are equal already."""
        inside = (s for s in self.site.slots if not self.site.layered or self.first <= s.layer <= self.last)
        return tuple(slot for slot in inside if slot.path in different)

    def hooks(self) -> list[str]:
        return [hook for layer in self.layers for hook in self.site.hooks.get(layer, ())]


def patches(
    sites: Iterable[Site], windows: Iterable[Family], n_layers: int, positions: Iterable[int | None] = (None,)
) -> list[Patch]:
    """Every site in every window, each pair once; a site that exists in some layers only, where it exists."""
    positions = list(positions)
    listed = dict.fromkeys(window for family in windows for window in family(n_layers))
    found = []
    for site in sites:
        if not site.layered:
            found.append(Patch(site, -1, -1))
            continue
        layers = set(site.layers())
        inside = [(first, last) for first, last in listed if layers & set(range(first, last + 1))]
        found += [Patch(site, first, last, position) for first, last in inside for position in positions]
    return found


def hooks_to_record(chosen: Iterable[Patch]) -> set[str]:
    """What the donor's pass must keep."""
    return {hook for patch in chosen for hook in patch.hooks()}


def activation_arm(patch: Patch, donor: Trace, positions: Bool[Tensor, "fact pos"] | None) -> Arm:
    """Write the donor's activations at every hook of the site in the window."""
    layers = [layer for layer in patch.layers if patch.site.hooks.get(layer)]
    writes = {
        hook: Write(donor.saved[hook], _where(donor.saved[hook], hook, patch.site.select, positions))
        for layer in layers
        for hook in patch.site.hooks[layer]
    }
    return Arm(layers[0], None, writes)


def splices(patch: Patch) -> bool:
    """Can this patch of one position be spliced in behind its block?

    What follows these hooks inside a block treats every position by itself. So one pass of the block with all
    positions patched holds, at position p, what the patch of p alone would give there: the arms of all positions cost
    one pass of one block together, and resume behind it.
    """
    hooks = patch.hooks()
    return patch.position is not None and patch.first == patch.last and all(h.endswith(POSITIONWISE) for h in hooks)


def spliced_arm(
    patch: Patch, behind: Float[Tensor, "fact pos d_model"], own: Trace, positions: Bool[Tensor, "fact pos"]
) -> Arm:
    """Resume behind the block on the recipient's own stream, with the patched one (`behind`) at these positions."""
    following = own.entries[patch.first + 1]
    return Arm(patch.first + 1, torch.where(positions[..., None], behind, following))


def _where(
    value: Tensor, hook: str, select: tuple[int, ...], positions: Bool[Tensor, "fact pos"] | None
) -> Tensor | None:
    where = None
    if positions is not None:
        where = positions.reshape(*positions.shape, *[1] * (value.dim() - 2))
    if select:
        # Heads lie on the last axis but one of hook_z (fact, pos, head, d_head), everything else on the last.
        axis = 2 if hook.endswith("hook_z") else value.dim() - 1
        chosen = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
        chosen[list(select)] = True
        chosen = chosen.reshape([-1 if i == axis else 1 for i in range(value.dim())])
        where = chosen if where is None else where & chosen
    return where


def residual_delta_layer(model: TransformerBridge, slots: tuple[Slot, ...]) -> int | None:
    """The layer, if restoring these parameters is one change of the residual stream behind that layer's block.

    So it is for the value vectors of a single layer: what they read is the recipient's own, so the block's output
    moves by coefficients · ΔW + Δb and no block need run again. A norm between the MLP and the residual stream
    (Gemma 2, OLMo 2) or a scaled residual breaks it.
    """
    layers = {slot.layer for slot in slots}
    if len(layers) != 1 or any(slot.roles != ("value_vectors",) for slot in slots):
        return None
    layer = layers.pop()
    block = model.blocks[layer]
    plain = type(block) in (BlockBridge, ParallelBlockBridge) and "ln2_post" not in block.submodules
    return layer if plain else None


def residual_delta_arm(
    layer: int, slots: tuple[Slot, ...], donor: dict[str, Slot], select: tuple[int, ...], recipient: Trace
) -> Arm:
    """Value vectors of one layer as a change of the residual stream behind its block."""
    coefficients = recipient.saved[f"blocks.{layer}.mlp.hook_post"]
    residual = recipient.entries[layer + 1]
    for slot in slots:
        change = donor_value(donor[slot.path], slot, select) - slot.tensor.data
        if change.dim() == 1:
            residual = residual + change
        else:
            residual = residual + coefficients @ (change if slot.features == 0 else change.T)
    return Arm(layer + 1, residual)
