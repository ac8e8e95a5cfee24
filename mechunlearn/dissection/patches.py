"""What a patch is, and what it does: a site in a window, and the arm of the recipient's pass that it makes.

An arm says where the recipient resumes, on which residual stream, and what the hooks above write. Each patch takes the
cheapest arm that gives the same numbers:

    activations                     resume at the window's first layer, and write the donor's values there
    activations at one position     where the block treats positions by themselves, one pass of the block serves the
                                    patches of all positions: resume behind it
    value vectors of one layer      coefficients · ΔW is added to the residual stream: resume behind the block
    other parameters                put the donor's into the recipient, and run from the first block that reads them

Arms that resume at the same block run together, stacked along the batch.
"""  # fmt: skip

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import BlockBridge, ParallelBlockBridge

from ..errors import UserError
from ..facts import Tokens
from ..models import Slot, slots
from ..models.forward import Trace, embed, record, resume, unembed
from ..models.hooks import Hook
from ..models.swapping import donor_value, parameters_of
from ..sites import Site
from .windows import Family

EMBEDDING = -1  # in place of a block to resume at: in front of all of them
POSITIONWISE = ("hook_attn_out", "hook_mlp_out", "mlp.hook_post", "mlp.hook_pre", "mlp.hook_pre_linear", "attn.hook_z")

BY_HEAD = ("attn.hook_pattern", "attn.hook_attn_scores")  # hooks whose positions stand behind the heads


@dataclass(frozen=True)
class Patch:
    """A site in a window; (-1, -1) for the sites outside the blocks. With `position`, at that token alone."""

    site: Site
    first: int
    last: int
    position: int | None = None

    @property
    def layers(self) -> list[int]:
        """The layers of the window in which the site writes activations."""
        return [layer for layer in range(self.first, self.last + 1) if self.site.hooks.get(layer)]

    @property
    def hooks(self) -> list[str]:
        return [hook for layer in self.layers for hook in self.site.hooks[layer]]

    @property
    def spliced(self) -> bool:
        """Whether this patch of one position can be spliced in behind its block.

        What follows these hooks inside a block treats every position by itself. So one pass of the block with all
        positions patched holds, at position p, what the patch of p alone would give there.
        """
        return (
            self.position is not None and self.first == self.last and all(h.endswith(POSITIONWISE) for h in self.hooks)
        )

    def slots(self, different: frozenset[str]) -> tuple[Slot, ...]:
        """The parameters to put back: those of the window that differ at all. The others are equal already."""
        inside = (s for s in self.site.slots if not self.site.layered or self.first <= s.layer <= self.last)
        return tuple(slot for slot in inside if slot.path in different)


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


def places(positions: str | Sequence[int], sites: Iterable[Site], tokens: Tokens) -> Iterable[int | None]:
    """The token positions that get a patch of their own; (None,) where a patch covers many.

    Raises:
        UserError: a parameter site, which has no positions.
    """
    if positions != "each":
        return (None,)
    fixed = [site.name for site in sites if site.kind == "parameters"]
    if fixed:
        raise UserError(f"site {fixed[0]!r}: parameters have no positions; with positions='each' give activation sites")
    return range(int(tokens.predicts.any(0).nonzero().max()) + 1)


@dataclass(frozen=True)
class Passes:
    """One pass of each model over a batch of facts, what is looked at (all or some of it), and where patches write."""

    donor: Trace
    own: Trace  # the recipient's
    facts: Int[Tensor, " scored"]  # of every scored position the row of the batch,
    places: Int[Tensor, " scored"]  # and the position in the row
    reference: Float[Tensor, "scored vocab"]  # the donor's logits there
    plain: Float[Tensor, "scored vocab"]  # the recipient's, unpatched
    where: Bool[Tensor, "fact pos"] | None  # patches without a position of their own write here; None: everywhere


@dataclass(frozen=True)
class Write:
    """The donor's values for one hook, and where they replace the recipient's (None: everywhere)."""

    value: Tensor  # "fact pos ..."
    where: Bool[Tensor, ...] | None = None  # broadcasts against value


@dataclass(frozen=True)
class Arm:
    """What is done to the recipient.

    Attributes:
        start: the block that it resumes at; `EMBEDDING`: from the tokens anew.
        residual: the stream that it resumes on; None: the recipient's own.
        writes: what hooks above write, by hook name.
        restored: parameters that hold the donor's values meanwhile; such an arm runs alone.
        select: rows of them, by the parameter's path; of those not named there all.
    """

    start: int
    residual: Float[Tensor, "fact pos d_model"] | None = None
    writes: Mapping[str, Write] = field(default_factory=dict)
    restored: tuple[Slot, ...] = ()
    select: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Patcher:
    """Makes the arms of patches between two models, and runs them.

    Args:
        donor, recipient: where values come from and where they go.
        different: paths of the parameters that differ between the two.
    """

    def __init__(self, donor: TransformerBridge, recipient: TransformerBridge, different: frozenset[str]) -> None:
        self.donor, self.recipient, self.different = donor, recipient, different
        self.donor_slots = {slot.path: slot for slot in slots(donor)}

    def start(self, patch: Patch) -> int | None:
        """The block that the patch resumes at; None where it cannot change a bit."""
        if patch.site.kind == "activation":
            return patch.first + 1 if patch.spliced else patch.layers[0]
        restored, layer = patch.slots(self.different), self._delta_layer(patch)
        if layer is not None:
            return layer + 1
        return self.restoring(restored).start if restored else None

    def alone(self, patch: Patch) -> bool:
        """Whether it puts parameters into the model, so that no other patch can share its pass."""
        return patch.site.kind == "parameters" and self._delta_layer(patch) is None

    def _delta_layer(self, patch: Patch) -> int | None:
        """The layer, if the patch is one change of the residual stream behind that layer's block.

        So it is for the value vectors of a single layer: what they read is the recipient's own, so the block's output
        moves by coefficients · ΔW + Δb and no block need run again. A norm between the MLP and the residual stream
        (Gemma 2, OLMo 2), a scaled residual, or an MLP that is no such product (experts) breaks it.
        """
        slots = patch.slots(self.different)
        layers = {slot.layer for slot in slots}
        if len(layers) != 1 or any(slot.roles != ("value_vectors",) for slot in slots):
            return None
        (layer,) = layers
        if not all(slot.path.startswith(f"blocks.{layer}.mlp.out.") for slot in slots):
            return None
        block = self.recipient.blocks[layer]
        plain = type(block) in (BlockBridge, ParallelBlockBridge) and "ln2_post" not in block.submodules
        return layer if plain else None

    def record(
        self,
        tokens: Tokens,
        scored: Bool[Tensor, "fact pos"],
        where: Bool[Tensor, "fact pos"] | None,
        chosen: list[Patch],
        most: int,
    ) -> Iterator[tuple[slice, Passes]]:
        """Run both models once over these facts, and keep what the chosen patches need.

        What is scored comes at most so many positions at a time, and which of them these are: logits of all would not
        fit into memory where answers are long and the vocabulary is large.
        """
        deltas = {self._delta_layer(patch) for patch in chosen} - {None}
        donor = record(self.donor, tokens, {hook for patch in chosen for hook in patch.hooks})
        own = record(self.recipient, tokens, {f"blocks.{layer}.mlp.hook_post" for layer in deltas})
        facts, places = torch.nonzero(scored, as_tuple=True)
        for first in range(0, len(facts), most):
            at = slice(first, first + most)
            some = facts[at], places[at]
            says = unembed(self.donor, donor.entries[-1][some])
            yield at, Passes(donor, own, *some, says, unembed(self.recipient, own.entries[-1][some]), where)

    def arm(self, patch: Patch, passes: Passes, behind: dict[str, Tensor]) -> Arm:
        """What the patch does.

        `behind` holds streams behind blocks that were patched at all positions; it is filled, and used for what shares
        them.
        """
        if patch.site.kind == "parameters":
            return self._parameters(patch, passes.own)
        if patch.position is None:
            return writing(patch, passes.donor, passes.where)
        here = torch.zeros_like(passes.own.tokens.predicts)
        here[:, patch.position] = True
        if not patch.spliced:
            return writing(patch, passes.donor, here)
        key = f"{patch.site.name} {patch.first}"
        if key not in behind:
            whole, rows = writing(patch, passes.donor, None), torch.arange(len(here), device=here.device)
            entry, hooks = passes.own.entries[patch.first], _hooks([whole], len(here))
            behind[key] = resume(self.recipient, passes.own, patch.first, entry, rows, hooks, patch.first + 1)
        following = passes.own.entries[patch.first + 1]
        return Arm(patch.first + 1, torch.where(here[..., None], behind[key], following))

    def _parameters(self, patch: Patch, own: Trace) -> Arm:
        slots, layer, select = patch.slots(self.different), self._delta_layer(patch), patch.site.select
        if layer is None:
            return self.restoring(slots, select)
        coefficients, residual = own.saved[f"blocks.{layer}.mlp.hook_post"], own.entries[layer + 1]
        for slot in slots:
            change = donor_value(self.donor_slots[slot.path], slot, select.get(slot.path, ())) - slot.tensor.data
            if change.dim() == 1:
                residual = residual + change
            else:
                residual = residual + coefficients @ (change if slot.features == 0 else change.T)
        return Arm(layer + 1, residual)

    def restoring(
        self,
        restored: tuple[Slot, ...],
        select: Mapping[str, tuple[int, ...]] | None = None,
        above: Arm | None = None,
    ) -> Arm:
        """These parameters are the donor's, all else is computed freely; what the arm `above` writes is written."""
        outside = {role for slot in restored if slot.layer < 0 for role in slot.roles}
        layers = [slot.layer for slot in restored if slot.layer >= 0] + ([] if above is None else [above.start])
        start = min(layers, default=len(self.recipient.blocks))
        start = EMBEDDING if outside - {"final_norm", "unembedding"} else start
        return Arm(start, None, {} if above is None else above.writes, restored, select or {})

    def run(
        self, arms: list[Arm], passes: Passes, *, control: bool = False
    ) -> tuple[Float[Tensor, "patch scored vocab"], Float[Tensor, "scored_of_first_fact vocab"] | None]:
        """Logits of every arm at the scored positions; with `control` those of the first fact, unpatched, beside them.

        All arms must start at the same block. Nothing below it is computed, and nothing is unembedded elsewhere.
        """
        own, start, n_facts = passes.own, arms[0].start, len(passes.own.tokens)
        with parameters_of(self.donor_slots, arms[0].restored, arms[0].select):
            entry = embed(self.recipient, own.tokens) if start == EMBEDDING else own.entries[start]
            rows = torch.cat([entry if arm.residual is None else arm.residual for arm in arms] + [entry[:1]] * control)
            facts = repeat(torch.arange(n_facts, device=entry.device), "fact -> (patch fact)", patch=len(arms))
            facts = torch.cat([facts, facts[:1]]) if control else facts
            final = resume(self.recipient, own, max(start, 0), rows, facts, _hooks(arms, n_facts))

            body = rearrange(final[: len(arms) * n_facts], "(patch fact) pos d -> patch fact pos d", fact=n_facts)
            chosen = body[:, passes.facts, passes.places]  # (patch, scored, d_model)
            logits = unembed(self.recipient, rearrange(chosen, "patch scored d -> (patch scored) d"))
            logits = rearrange(logits, "(patch scored) vocab -> patch scored vocab", patch=len(arms))
            if not control:
                return logits, None
            return logits, unembed(self.recipient, final[-1][passes.places[passes.facts == 0]])

    def itself(self, patch: Patch, passes: Passes) -> tuple[Tensor, Tensor]:
        """Logits of the recipient patched with what it computes itself, and unpatched, from one batch."""
        arm = writing(patch, record(self.recipient, passes.own.tokens, patch.hooks), passes.where)
        logits, _ = self.run([arm, Arm(arm.start)], passes, control=True)
        return logits[:1], logits[1:]


def writing(patch: Patch, donor: Trace, positions: Bool[Tensor, "fact pos"] | None) -> Arm:
    """Write the donor's activations at every hook of the site in the window."""
    writes = {
        hook: Write(donor.saved[hook], _where(donor.saved[hook], hook, patch.site.select.get(hook, ()), positions))
        for hook in patch.hooks
    }
    return Arm(patch.layers[0], None, writes)


def _where(
    value: Tensor, hook: str, select: tuple[int, ...], positions: Bool[Tensor, "fact pos"] | None
) -> Tensor | None:
    where = None
    if positions is not None:
        where = positions.reshape(*positions.shape, *[1] * (value.dim() - 2))
        if hook.endswith(BY_HEAD):  # (fact, head, query, key)
            where = positions[:, None, :, None]
        elif value.shape[:2] != positions.shape:
            raise UserError(f"{hook} has the shape {tuple(value.shape)}, not one row a fact and position; give 'all'")
    if select:
        # Heads lie on the last axis but one of hook_z (fact, pos, head, d_head), everything else on the last.
        axis = 2 if hook.endswith("hook_z") else value.dim() - 1
        chosen = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
        chosen[list(select)] = True
        chosen = chosen.reshape([-1 if i == axis else 1 for i in range(value.dim())])
        where = chosen if where is None else where & chosen
    return where


def _hooks(arms: list[Arm], n_facts: int) -> list[tuple[str, Hook]]:
    """One hook function a hook point, which writes for all the arms that patch there. Rows go arm by arm."""
    writers: dict[str, dict[int, Write]] = defaultdict(dict)
    for number, arm in enumerate(arms):
        for name, write in arm.writes.items():
            writers[name][number] = write
    return [(name, _writer(writes, len(arms), n_facts)) for name, writes in writers.items()]


def _writer(writes: dict[int, Write], n_arms: int, n_facts: int) -> Hook:
    def write(tensor: Tensor, *, hook: HookPoint) -> Tensor:
        if len(tensor) not in (n_arms * n_facts, n_arms * n_facts + 1):  # one row more is the control
            told = f"{hook.name} has the shape {tuple(tensor.shape)}, not one row for each of {n_arms * n_facts} facts"
            raise UserError(f"{told} that pass together, so it cannot be patched fact by fact; choose another site")
        patched = tensor.clone()
        rows = rearrange(patched[: n_arms * n_facts], "(patch fact) ... -> patch fact ...", fact=n_facts)
        for number, new in writes.items():
            if new.where is None:
                rows[number] = new.value
            else:
                rows[number] = torch.where(new.where, new.value, rows[number])
        return patched

    return write
