"""Every patch on one batch of facts: donor once, recipient once, then only what lies at or above each window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Tokens, paper_positions
from ..models import Slot, slots
from .arms import Arm, Scored, arm_hooks, run_arms
from .engine import Trace, embed, parameters_of, record, resume, unembed
from .plan import (
    Patch,
    activation_arm,
    hooks_to_record,
    residual_delta_arm,
    residual_delta_layer,
    spliced_arm,
    splices,
)
from .scores import Reference, answer_logprob, distances, rounding

POSITIONS = ("all", "answer", "prompt", "paper", "each")
SCORED_AT_ONCE = 4_000_000  # logits scored at a time: 32 MB in float64
Where = str | Sequence[int]


@dataclass(frozen=True)
class Measured:
    """What one batch of facts gave, by metric: distances of every patch, the denominators, the noise."""

    distances: dict[str, Float[np.ndarray, "patch fact"]]
    baseline: dict[str, Float[np.ndarray, " fact"]]
    noise: dict[str, float]
    logprob: dict[str, Float[np.ndarray, " fact"]]  # "donor", "recipient": of the answer, nats
    said: dict[str, list[list[int]]]  # "donor", "recipient": most probable token at each predicting position
    right: dict[str, list[bool]]  # "donor", "recipient": is all of the answer said?


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

    @torch.inference_mode()
    def run(self, tokens: Tokens, progress: Callable[[int], object] = lambda _: None) -> Measured:
        """Measure every patch on these facts. `progress` is told how many patches were just finished."""
        whole, tokens = tokens, self.needed(tokens)
        deltas = {
            number: layer
            for number, patch in enumerate(self.chosen)
            if patch.site.kind == "parameters"
            and (layer := residual_delta_layer(self.recipient, patch.slots(self.different))) is not None
        }
        donor = record(self.donor, tokens, hooks_to_record(self.chosen))
        own = record(self.recipient, tokens, {f"blocks.{layer}.mlp.hook_post" for layer in deltas.values()})
        scored, reference = self.reference(donor, whole)
        plain = unembed(self.recipient, own.entries[-1][scored.facts, scored.places])
        baseline = {metric: value[0] for metric, value in distances(reference, plain[None]).items()}
        result = {metric: value.repeat(len(self.chosen), 1) for metric, value in baseline.items()}
        noise = rounding(reference, plain.dtype)

        for numbers, arms in self._stacked(tokens, donor, own, deltas):
            logits, control = run_arms(self.recipient, own, arms, scored)
            _store(result, numbers, reference, logits)
            assert control is not None
            _raise_noise(noise, plain[scored.facts == 0], control, reference)
            progress(len(numbers))
        for number, patch in enumerate(self.chosen):
            if patch.site.kind == "parameters" and number not in deltas:
                restored = patch.slots(self.different)
                if restored:  # else every bit is equal already, and so is the distance
                    _store(result, [number], reference, self.restored(own, restored, patch.site.select, scored))
                progress(1)
        said = {"donor": _said(reference, reference.logits), "recipient": _said(reference, plain)}
        answers = _by_fact(reference, reference.targets)
        return Measured(
            {metric: value.cpu().numpy() for metric, value in result.items()},
            {metric: value.cpu().numpy() for metric, value in baseline.items()},
            noise,
            {
                "donor": answer_logprob(reference, reference.logits).cpu().numpy(),
                "recipient": answer_logprob(reference, plain).cpu().numpy(),
            },
            said,
            {model: [tokens == answer for tokens, answer in zip(said[model], answers, strict=True)] for model in said},
        )

    def restored(
        self,
        own: Trace,
        restored: tuple[Slot, ...],
        select: tuple[int, ...],
        scored: Scored,
        writes: Arm | None = None,
    ) -> Float[Tensor, "1 scored vocab"]:
        """Logits with these parameters of the donor, all else computed freely; `writes` patches activations too."""
        outside = {role for slot in restored if slot.layer < 0 for role in slot.roles}
        from_start = bool(outside - {"final_norm", "unembedding"})
        start = min((slot.layer for slot in restored if slot.layer >= 0), default=len(self.recipient.blocks))
        start = 0 if from_start else min(start, writes.start if writes else start)
        with parameters_of(self.donor_slots, restored, select):
            residual = embed(self.recipient, own.tokens) if from_start else None
            arm = Arm(start, residual, writes.writes if writes else {})
            return run_arms(self.recipient, own, [arm], scored, control=False)[0]

    def positions_mask(self, tokens: Tokens) -> Bool[Tensor, "fact pos"] | None:
        """Where activations are patched; None is everywhere."""
        if self.positions in ("all", "paper", "each"):
            return None
        if self.positions == "answer":
            return tokens.predicts
        if self.positions == "prompt":
            return tokens.attention.bool() & ~tokens.predicts & ~tokens.answers
        return _columns(tokens, [int(place) for place in self.positions])

    def needed(self, tokens: Tokens) -> Tokens:
        """The rows up to the last position that is scored: what comes later cannot reach back."""
        if self.positions == "paper":
            return tokens
        return tokens.columns(int(tokens.predicts.any(0).nonzero().max()) + 1)

    def reference(self, donor: Trace, whole: Tokens) -> tuple[Scored, Reference]:
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

    def _stacked(
        self, tokens: Tokens, donor: Trace, own: Trace, deltas: dict[int, int]
    ) -> Iterator[tuple[list[int], list[Arm]]]:
        """Patches that share a batch: those that resume at the same layer, whatever their site."""
        mask = self.positions_mask(tokens)
        behind: dict[tuple[str, int], Tensor] = {}
        by_start: dict[int, list[tuple[int, Arm]]] = defaultdict(list)
        for number, patch in enumerate(self.chosen):
            if number in deltas:
                changed = patch.slots(self.different)
                arm = residual_delta_arm(deltas[number], changed, self.donor_slots, patch.site.select, own)
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


def _store(
    result: dict[str, Tensor], numbers: list[int], reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> None:
    step = max(1, SCORED_AT_ONCE // max(1, logits[0].numel()))
    for first in range(0, len(numbers), step):
        some = torch.tensor(numbers[first : first + step], device=logits.device)
        for metric, value in distances(reference, logits[first : first + step]).items():
            result[metric][some] = value


def _raise_noise(
    noise: dict[str, float], plain: Float[Tensor, "s vocab"], control: Float[Tensor, "s vocab"], reference: Reference
) -> None:
    """The control row was not patched: what it moved is noise."""
    first = reference.facts == 0
    alone = Reference(
        plain, reference.targets[first], reference.facts[first], reference.compared[first], reference.predicts[first], 1
    )
    for metric, value in distances(alone, control[None]).items():
        noise[metric] = max(noise[metric], float(value[0, 0]))


def _said(reference: Reference, logits: Float[Tensor, "scored vocab"]) -> list[list[int]]:
    return _by_fact(reference, logits.argmax(-1))


def _by_fact(reference: Reference, tokens: Int[Tensor, " scored"]) -> list[list[int]]:
    """The tokens at the predicting positions, fact by fact."""
    found: list[list[int]] = [[] for _ in range(reference.n_facts)]
    facts = reference.facts[reference.predicts].tolist()
    for fact, token in zip(facts, tokens[reference.predicts].tolist(), strict=True):
        found[fact].append(token)
    return found
