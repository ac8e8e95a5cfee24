"""Arms: what is done to the recipient at once, and how many arms share one batch.

An arm says where the model resumes, on which residual stream, and what the hooks above write. Arms that resume at the
same layer are stacked along the batch, patch by patch, fact by fact, with one unpatched row at the end: the control
that shows how much the numbers move for no other reason than the shape of the batch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..models.forward import Trace, resume, unembed
from ..models.hooks import Hook


@dataclass(frozen=True)
class Write:
    """The donor's values for one hook, and where they replace the recipient's (None: everywhere)."""

    value: Tensor  # "fact pos ..."
    where: Bool[Tensor, ...] | None = None  # broadcasts against value


@dataclass(frozen=True)
class Arm:
    """One patch: resume at block `start`, on `residual` (None: the recipient's own), with these writes above."""

    start: int
    residual: Float[Tensor, "fact pos d_model"] | None = None
    writes: dict[str, Write] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """The positions of a batch of facts whose logits are looked at."""

    facts: Tensor  # " scored": row of the batch
    places: Tensor  # " scored": position in the row


def run_arms(
    model: TransformerBridge, trace: Trace, arms: list[Arm], scored: Scored, *, control: bool = True
) -> tuple[Float[Tensor, "patch scored vocab"], Float[Tensor, "scored_of_first_fact vocab"] | None]:
    """Logits of every arm at the scored positions, and those of the control row (the first fact, unpatched).

    All arms must start at the same layer. Nothing below it is computed, and nothing is unembedded elsewhere.
    """
    start, n_facts = arms[0].start, len(trace.tokens)
    own = trace.entries[start]
    rows = torch.cat([own if arm.residual is None else arm.residual for arm in arms] + [own[:1]] * control)
    facts = repeat(torch.arange(n_facts, device=own.device), "fact -> (patch fact)", patch=len(arms))
    facts = torch.cat([facts, facts[:1]]) if control else facts
    final = resume(model, trace, start, rows, facts, arm_hooks(arms, n_facts)) if start < len(model.blocks) else rows

    body = rearrange(final[: len(arms) * n_facts], "(patch fact) pos d -> patch fact pos d", fact=n_facts)
    chosen = body[:, scored.facts, scored.places]  # (patch, scored, d_model)
    logits = unembed(model, rearrange(chosen, "patch scored d -> (patch scored) d"))
    logits = rearrange(logits, "(patch scored) vocab -> patch scored vocab", patch=len(arms))
    if not control:
        return logits, None
    return logits, unembed(model, final[-1][scored.places[scored.facts == 0]])


def arm_hooks(arms: list[Arm], n_facts: int) -> list[tuple[str, Hook]]:
    """One hook function a hook point, which writes for all the arms that patch there."""
    writers: dict[str, dict[int, Write]] = defaultdict(dict)
    for number, arm in enumerate(arms):
        for name, write in arm.writes.items():
            writers[name][number] = write
    return [(name, _writer(writes, len(arms), n_facts)) for name, writes in writers.items()]


def _writer(writes: dict[int, Write], n_arms: int, n_facts: int) -> Hook:
    def write(tensor: Tensor, *, hook: HookPoint) -> Tensor:  # noqa: ARG001 - TransformerLens passes it by name
        patched = tensor.clone()
        rows = rearrange(patched[: n_arms * n_facts], "(patch fact) ... -> patch fact ...", fact=n_facts)
        for number, new in writes.items():
            if new.where is None:
                rows[number] = new.value
            else:
                rows[number] = torch.where(new.where, new.value, rows[number])
        return patched

    return write
