"""Every patch on every fact: donor once, recipient once, then only what lies at or above each window.

Facts go in batches, and each is a unit of the run that is kept when it is done. Within a batch, patches that resume at
the same block share passes, arm by arm, with one unpatched row at the end of each: the control that shows how much the
numbers move for no other reason than the shape of the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..facts import Tokens, paper_positions
from ..models.forward import LOGITS_AT_ONCE
from ..runs import RunFolder
from .metrics import METRICS, Counts, Reference, distances, rounding, summed, whole
from .patches import Passes, Patch, Patcher
from .positions import Where, chosen as checked_positions, mask

DONOR, PLAIN = -2, -1  # in place of a patch's number: the donor, and the recipient unpatched
SCORED_AT_ONCE = 2**23  # logits of the facts that are measured together: 32 MB in float32 for each model and patch


class Piece(NamedTuple):
    """What was measured at some scored positions, with a row a patch, one of the recipient and one of the donor."""

    sums: dict[str, Float[Tensor, "row fact"]]  # parts of what `metrics.whole` makes measurements of
    said: Int[Tensor, "row predicting"]  # the most probable token
    rows: Int[Tensor, " predicting"]  # the fact that each predicting position belongs to
    noise: dict[str, float]


class Sweep:
    """All patches between a donor and a recipient.

    Args:
        donor, recipient: where values come from and where they go.
        chosen: the patches, resolved against the recipient.
        different: paths of the parameters that differ between the two.
        positions: where activations are patched: "all" (the paper), "each" (every patch names its own), "paper" (all,
            and scored at the positions the paper's code takes), another of `positions.POSITIONS`, or token positions
            (`positions.mask`).
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
        self.chosen, self.max_tokens = chosen, max_tokens
        self.positions = checked_positions(positions)
        self.recipient, self.patcher = recipient, Patcher(donor, recipient, different)
        self.starts = [self.patcher.start(patch) for patch in chosen]

    def units(self, tokens: Tokens, batch_size: int, folder: RunFolder | None, progress: bool) -> pd.DataFrame:
        """What `measure` gives for all facts, going on where an earlier run of the folder ended.

        Facts that are measured together, at most `batch_size`, are of like length, so that little is padding, and few
        enough for their logits to stand in memory together.
        """
        planned = self.planned(tokens, batch_size)
        total = len(planned) * len(self.chosen)
        found = []
        with tqdm(total=total, desc="dissect", unit="patch", disable=not progress, leave=False) as bar:
            for number, rows in enumerate(planned):
                asked = [tokens.fact_ids[row] for row in rows]
                unit = folder.unit(f"{number:05d}", asked) if folder is not None else None
                if unit is None:
                    unit = self.measure(tokens[rows].trim(), bar.update)
                    if folder is not None:
                        folder.finish_unit(f"{number:05d}", unit, asked)
                else:
                    bar.update(len(self.chosen))
                found.append(unit)
        return pd.concat(found, ignore_index=True)

    def planned(self, tokens: Tokens, batch_size: int) -> list[list[int]]:
        """The rows that are measured together."""
        lengths = tokens.attention.sum(1)
        scored = self._scored(tokens).sum(1)
        planned, positions = list[list[int]](), 0
        for row in torch.argsort(lengths, stable=True).tolist():
            positions += int(scored[row])
            full = not planned or (len(planned[-1]) + 1) * int(lengths[row]) > self.max_tokens
            if full or len(planned[-1]) == batch_size or positions > self._most:
                planned.append([])
                positions = int(scored[row])
            planned[-1].append(row)
        return planned

    def _scored(self, tokens: Tokens) -> Bool[Tensor, "fact pos"]:
        """The positions whose logits are looked at: compared, or predicting the answer."""
        return tokens.predicts | paper_positions(tokens) if self.positions == "paper" else tokens.predicts

    @property
    def _most(self) -> int:
        """How many scored positions stand in memory together."""
        return max(1, SCORED_AT_ONCE // self.recipient.cfg.d_vocab)

    @torch.no_grad()
    def measure(self, tokens: Tokens, progress: Callable[[float], object] = lambda _: None) -> pd.DataFrame:
        """Every patch on these facts; `progress` is told how many patches were just finished.

        Returns:
            One row a patch and fact: `patch` (its number, or `DONOR`, or `PLAIN`: the recipient as it is), `question`
            (its id), a column a metric (the distance to the donor), `said` (the most probable token at each predicting
            position; None for patches of one position), `logprob` (nats) and `rank` of the answer
            (`metrics.of_answer`), and `noise:…`, how far the computation itself moved each metric in this batch.
        """
        held = tokens.to(next(self.recipient.parameters()).device)
        count = -(-int(self._scored(held).sum()) // self._most)  # pieces; a patch is finished when it is in all of them
        told = progress if count == 1 else lambda patches: progress(patches / count)
        pieces = [self._piece(*some, told) for some in self.record(held)]
        sums = {name: torch.stack([piece.sums[name] for piece in pieces]).sum(0) for name in pieces[0].sums}
        said, rows = (torch.cat([getattr(piece, name) for piece in pieces], -1) for name in ("said", "rows"))
        noise = {name: max(piece.noise[name] for piece in pieces) for name in METRICS}
        return self._frame(tokens, rows, whole(sums), said, noise)

    def _piece(self, passes: Passes, reference: Reference, progress: Callable[[float], object]) -> Piece:
        """Every patch, the recipient and the donor on some of the scored positions."""
        # A patch that cannot change a bit is not run: it is as the recipient. One row more, the last, is the recipient.
        rows = len(self.chosen) + 1
        found = {name: value.repeat(rows, 1) for name, value in summed(reference, passes.plain[None]).items()}
        said = passes.plain.argmax(-1)[reference.predicts].repeat(rows, 1)
        noise = rounding(reference, passes.plain.dtype)
        for numbers, logits, control in self.patched(passes):
            for name, value in summed(reference, logits).items():
                found[name][numbers] = value
            said[numbers] = logits.argmax(-1)[:, reference.predicts]
            if control is not None:  # nothing was patched there: what it moved is noise
                moved = distances(reference.of_first_fact(passes.plain), control[None])
                noise = {name: max(noise[name], float(value)) for name, value in moved.items()}
            progress(len(numbers))
        of_donor = summed(reference, passes.reference[None])
        of_donor |= {name: torch.zeros_like(of_donor[name]) for name in METRICS}
        sums = {name: torch.cat([value, of_donor[name]]) for name, value in found.items()}
        says = passes.reference.argmax(-1)[reference.predicts]
        return Piece(sums, torch.cat([said, says[None]]), reference.facts[reference.predicts], noise)

    def _frame(
        self,
        tokens: Tokens,
        rows: Int[Tensor, " predicting"],
        found: dict[str, Float[Tensor, "patch_and_donor fact"]],
        said: Int[Tensor, "patch_and_donor predicting"],
        noise: dict[str, float],
    ) -> pd.DataFrame:
        numbers = [*range(len(self.chosen)), PLAIN, DONOR]
        ends = torch.bincount(rows, minlength=len(tokens)).cumsum(0)[:-1].tolist()
        told = np.split(said.cpu().numpy().astype(np.int32), ends, axis=1)
        aside = [number >= 0 and self.chosen[number].position is not None for number in numbers]
        return pd.DataFrame(
            {
                "patch": np.repeat(numbers, len(tokens)),
                "question": np.tile(np.asarray(tokens.fact_ids, dtype=object), len(numbers)),
                **{name: value.cpu().numpy().ravel() for name, value in found.items()},
                "said": [None if aside[n] else fact[n].tolist() for n in range(len(numbers)) for fact in told],
                **{f"noise:{name}": noise[name] for name in METRICS},
            }
        )

    def record(self, tokens: Tokens) -> Iterator[tuple[Passes, Reference]]:
        """Run both models once over these facts, as far as any scored position needs; what is scored, in pieces.

        Facts are planned so that there is one piece, unless a single one has more than may stand in memory together.
        """
        # What comes later than the last scored position cannot reach back.
        end = int(tokens.predicts.any(0).nonzero().max()) + 1
        needed = tokens if self.positions == "paper" else tokens.columns(end)
        compared = paper_positions(needed) if self.positions == "paper" else needed.predicts
        following = torch.cat([tokens.ids[:, 1:], tokens.ids[:, -1:]], dim=1)
        scored = self._scored(needed)
        targets, compares, predicts = following[:, : scored.shape[1]][scored], compared[scored], needed.predicts[scored]
        facts = scored.nonzero()[:, 0]
        counts = Counts.of(facts, compares, predicts, len(tokens))
        where = mask(self.positions, needed)
        for at, passes in self.patcher.record(needed, scored, where, self.chosen, self._most):
            yield (
                passes,
                Reference(passes.reference, targets[at], passes.facts, compares[at], predicts[at], len(tokens), counts),
            )

    def patched(self, passes: Passes) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
        """Logits of every patch at the scored positions, batch by batch.

        Yields the numbers of the patches, their logits "patch scored vocab", and those of the batch's control row (the
        first fact, unpatched; None where weights were exchanged). A patch that cannot change a bit is left out.
        """
        tokens = passes.own.tokens
        together = max(1, min(self.max_tokens // tokens.ids.numel(), LOGITS_AT_ONCE // passes.reference.numel()))
        for numbers in self._groups(tokens.ids.shape[1]):
            behind: dict[str, Tensor] = {}  # kept while patches resume behind the same block
            alone = self.patcher.alone(self.chosen[numbers[0]])
            for first in range(0, len(numbers), together):
                some = numbers[first : first + together]
                arms = [self.patcher.arm(self.chosen[number], passes, behind) for number in some]
                yield some, *self.patcher.run(arms, passes, control=not alone)

    def _groups(self, width: int) -> list[list[int]]:
        """The patches that can share passes: those that resume at the same block; then those that go alone."""
        shared: dict[int, list[int]] = defaultdict(list)
        alone = []
        for number, (patch, start) in enumerate(zip(self.chosen, self.starts, strict=True)):
            if start is None or (patch.position or 0) >= width:
                continue  # it changes nothing, or lies behind everything that is scored
            if self.patcher.alone(patch):
                alone.append([number])
            else:
                shared[start].append(number)
        return [numbers for _, numbers in sorted(shared.items())] + alone
