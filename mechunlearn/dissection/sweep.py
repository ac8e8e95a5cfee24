"""Every patch on one batch of facts: donor once, recipient once, then only what lies at or above each window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Tokens, paper_positions
from ..models import Slot, slots
from ..models.forward import Trace, embed, parameters_of, record, resume, unembed
from .arms import Arm, Scored, arm_hooks, run_arms
from .metrics import Reference
from .plan import (
    Patch,
    activation_arm,
    hooks_to_record,
    residual_delta_arm,
    residual_delta_layer,
    spliced_arm,
    splices,
)

POSITIONS = ("all", "answer", "prompt", "paper", "each")
Where = str | Sequence[int]
Batch = tuple[list[int], Tensor, Tensor | None]


@dataclass(frozen=True)
class Recorded:
    """One pass of each model over a batch of facts, and what is looked at."""

    donor: Trace
    own: Trace  # the recipient's
    scored: Scored
    reference: Reference
    plain: Float[Tensor, "scored vocab"]  # the recipient's logits, unpatched


class Sweep:
    """All patches between a donor and a recipient.

    Args:
        donor, recipient: where values come from and where they go.
        chosen: the patches, resolved against the recipient.
        different: paths of the parameters that differ between the two.
        positions: where activations are patched: "all" (the paper), "answer" (positions whose logits predict the
            answer), "prompt" (those before), "paper" (all, and scored at the positions the paper's code takes), "each"
            (every patch names its own), or token positions counted from the start.
        max_tokens: most tokens in one batch of patched rows.
    """

    def __init__(
        self,
        donor: TransformerBridge,
        recipient: TransformerBridge,
        chosen: list[Patch],
        different: frozenset[str],
        positions: Where = "all",
        max_tokens: int = 8192,
    ) -> None:
        if isinstance(positions, str) and positions not in POSITIONS:
            known = ", ".join(POSITIONS)
            raise UserError(f"positions {positions!r}: not one of {known}, nor a list of token positions")
        self.donor, self.recipient = donor, recipient
        self.donor_slots = {slot.path: slot for slot in slots(donor)}
        self.chosen, self.different = chosen, different
        self.positions, self.max_tokens = positions, max_tokens
        self.deltas = {  # patches that are one change of the residual stream, with its layer
            number: layer
            for number, patch in enumerate(chosen)
            if patch.site.kind == "parameters"
            and (layer := residual_delta_layer(recipient, patch.slots(different))) is not None
        }

    @torch.inference_mode()
    def record(self, tokens: Tokens) -> Recorded:
        """Run both models once over these facts, as far as any scored position needs."""
        needed = self._needed(tokens)
        donor = record(self.donor, needed, hooks_to_record(self.chosen))
        own = record(self.recipient, needed, {f"blocks.{layer}.mlp.hook_post" for layer in self.deltas.values()})
        scored, reference = self._reference(donor, tokens)
        plain = unembed(self.recipient, own.entries[-1][scored.facts, scored.places])
        return Recorded(donor, own, scored, reference, plain)

    @torch.inference_mode()
    def patched(self, recorded: Recorded) -> Iterator[Batch]:
        """Logits of every patch at the scored positions, batch by batch.

        Yields the numbers of the patches, their logits "patch scored vocab", and those of the batch's control row (the
        first fact, unpatched; None where weights were exchanged). A patch that cannot change a bit is left out.
        """
        for numbers, arms in self._stacked(recorded):
            yield numbers, *run_arms(self.recipient, recorded.own, arms, recorded.scored)
        for number, patch in enumerate(self.chosen):
            restored = patch.slots(self.different)
            if patch.site.kind == "parameters" and number not in self.deltas and restored:
                yield [number], self.restored(recorded, restored, patch.site.select), None

    @torch.inference_mode()
    def restored(
        self,
        recorded: Recorded,
        restored: tuple[Slot, ...],
        select: tuple[int, ...] = (),
        writes: Arm | None = None,
    ) -> Float[Tensor, "1 scored vocab"]:
        """Logits with these parameters of the donor, all else computed freely; `writes` patches activations too."""
        outside = {role for slot in restored if slot.layer < 0 for role in slot.roles}
        from_start = bool(outside - {"final_norm", "unembedding"})
        start = min((slot.layer for slot in restored if slot.layer >= 0), default=len(self.recipient.blocks))
        start = 0 if from_start else min(start, writes.start if writes else start)
        with parameters_of(self.donor_slots, restored, select):
            residual = embed(self.recipient, recorded.own.tokens) if from_start else None
            arm = Arm(start, residual, writes.writes if writes else {})
            return run_arms(self.recipient, recorded.own, [arm], recorded.scored, control=False)[0]

    def positions_mask(self, tokens: Tokens) -> Bool[Tensor, "fact pos"] | None:
        """Where activations are patched; None is everywhere."""
        if self.positions in ("all", "paper", "each"):
            return None
        if self.positions == "answer":
            return tokens.predicts
        if self.positions == "prompt":
            return tokens.attention.bool() & ~tokens.predicts & ~tokens.answers
        return _columns(tokens, [int(place) for place in self.positions])

    def _needed(self, tokens: Tokens) -> Tokens:
        """The rows up to the last position that is scored: what comes later cannot reach back."""
        if self.positions == "paper":
            return tokens
        return tokens.columns(int(tokens.predicts.any(0).nonzero().max()) + 1)

    def _reference(self, donor: Trace, whole: Tokens) -> tuple[Scored, Reference]:
        """The scored positions, what the donor predicts there, and what (in the uncut rows) follows."""
        tokens = donor.tokens
        compared = paper_positions(tokens) if self.positions == "paper" else tokens.predicts
        facts, places = torch.nonzero(compared | tokens.predicts, as_tuple=True)
        following = torch.cat([whole.ids[:, 1:], whole.ids[:, -1:]], dim=1)
        return Scored(facts, places), Reference(
            logits=unembed(self.donor, donor.entries[-1][facts, places]),
            targets=following[facts, places],
            facts=facts,
            compared=compared[facts, places],
            predicts=tokens.predicts[facts, places],
            n_facts=len(tokens),
        )

    def _stacked(self, recorded: Recorded) -> Iterator[tuple[list[int], list[Arm]]]:
        """Patches that share a batch: those that resume at the same layer, whatever their site."""
        donor, own = recorded.donor, recorded.own
        tokens = own.tokens
        mask = self.positions_mask(tokens)
        behind: dict[tuple[str, int], Tensor] = {}
        by_start: dict[int, list[tuple[int, Arm]]] = defaultdict(list)
        for number, patch in enumerate(self.chosen):
            if number in self.deltas:
                changed = patch.slots(self.different)
                arm = residual_delta_arm(self.deltas[number], changed, self.donor_slots, patch.site.select, own)
            elif patch.site.kind != "activation":
                continue
            elif patch.position is None:
                arm = activation_arm(patch, donor, mask)
            elif patch.position >= tokens.ids.shape[1]:
                continue  # behind everything that is scored
            elif splices(patch):
                key = (patch.site.name, patch.first)
                if key not in behind:
                    behind[key] = self._behind(activation_arm(patch, donor, None), own)
                arm = spliced_arm(patch, behind[key], own, _columns(tokens, [patch.position]))
            else:
                arm = activation_arm(patch, donor, _columns(tokens, [patch.position]))
            by_start[arm.start].append((number, arm))
        together = max(1, self.max_tokens // tokens.ids.numel())
        for start in sorted(by_start):
            numbered = by_start[start]
            for first in range(0, len(numbered), together):
                some = numbered[first : first + together]
                yield [number for number, _ in some], [arm for _, arm in some]

    def _behind(self, arm: Arm, own: Trace) -> Float[Tensor, "fact pos d_model"]:
        """The stream behind the arm's block, patched at all positions."""
        facts = torch.arange(len(own.tokens), device=own.tokens.ids.device)
        hooks = arm_hooks([arm], len(own.tokens))
        return resume(self.recipient, own, arm.start, own.entries[arm.start], facts, hooks, arm.start + 1)


def _columns(tokens: Tokens, places: list[int]) -> Bool[Tensor, "fact pos"]:
    """True in these columns, as far as the rows reach."""
    mask = torch.zeros_like(tokens.predicts)
    mask[:, [place for place in places if place < mask.shape[1]]] = True
    return mask
