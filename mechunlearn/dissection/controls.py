"""Controls: patches whose result is known beforehand, measured with every dissection on a few of its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Tokens
from ..models import slots
from ..models.forward import record
from ..sites import resolve
from .metrics import METRICS, Reference, summed, whole
from .patches import Arm, Passes, Patch, writing
from .sweep import Sweep

BOTH, OUTPUTS = "mlp_coefficients+attention_output", "mlp_output+attention_output"
TOLERANCE = 1e-3
# With coefficients and attention given everywhere, the prediction still passes through these of the recipient's.
REMAINDER = ("value_vectors", "norms", "embedding", "final_norm", "unembedding", "other")
REACH = "share of facts"  # in place of a metric: how many facts a patch moves at all
COLUMNS = ["control", "site", "metric", "expected", "measured", "tolerance", "passed"]


@torch.no_grad()
def measure_controls(sweep: Sweep, tokens: Tokens, floor: dict[str, float]) -> pd.DataFrame:
    """One row a control: what must come out, what did, and whether it is within the tolerance.

    `expected` is missing where there is no right value: then the control is a measurement that helps to read the
    others. Recoveries are ratios of means over the facts whose denominator lies above the noise floor.
    """
    found: dict[Control, list[Measured]] = {}
    shifts: dict[str, list[Tensor]] = {}
    for some in sweep.planned(tokens, len(tokens)):  # as many facts at a time as their logits allow
        measured: dict[Control, Measured] = {}
        shift: dict[str, Tensor] = {}
        for passes, reference in sweep.record(tokens[some].trim()):  # an answer too long for the memory, in pieces
            for control, part in _of_facts(sweep, passes, reference):
                measured[control] = part.added_to(measured.get(control))
            for site in _activation_sites(sweep):
                shift[site] = _shift(sweep, site, passes, reference) + shift.get(site, 0)
        for control, all_of_it in measured.items():
            found.setdefault(control, []).append(all_of_it)
        for site, distance in shift.items():
            shifts.setdefault(site, []).append(distance)
    rows = [
        _row(control, metric, value)
        for control, parts in found.items()
        for metric, value in _recoveries(parts, floor).items()
    ]
    for site, distances in shifts.items():
        control = Control("patched with noise, all layers: every fact must move", site, 1.0)
        rows.append(_row(control, REACH, float((torch.cat(distances) > floor["mse"]).double().mean())))
    return pd.DataFrame(rows, columns=COLUMNS)


class Control(NamedTuple):
    """A patch, and what must come of it; None where there is no right value."""

    name: str
    site: str
    expected: float | None


class Measured(NamedTuple):
    """By metric and fact, under the control's patch and of what it is compared with: sums (`metrics.summed`)."""

    patched: dict[str, Tensor]
    baseline: dict[str, Tensor]

    def added_to(self, earlier: Measured | None) -> Measured:
        """This and what was measured on earlier pieces of the same facts."""
        return self if earlier is None else Measured(*map(_sum, self, earlier))


def _sum(part: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + other[name] for name, value in part.items()}


def _row(control: Control, metric: str, value: float) -> dict[str, object]:
    expected = control.expected
    passed = None if expected is None or np.isnan(value) else abs(value - expected) <= TOLERANCE
    tolerance = None if expected is None else TOLERANCE
    told = [control.name, control.site, metric, expected, value, tolerance, passed]
    return dict(zip(COLUMNS, told, strict=True))


def _activation_sites(sweep: Sweep) -> list[str]:
    return sorted({patch.site.name for patch in sweep.chosen if patch.site.kind == "activation"})


def _of_facts(sweep: Sweep, passes: Passes, reference: Reference) -> Iterator[tuple[Control, Measured]]:
    """Every control on these facts whose right value is a recovery."""
    model, patcher = sweep.recipient, sweep.patcher
    last = model.cfg.n_layers - 1
    plain = summed(reference, passes.plain[None])

    def of(logits: Tensor, against: dict[str, Tensor] = plain) -> Measured:
        return Measured(summed(reference, logits), against)

    empty, _ = patcher.run([Arm(0)], passes, control=True)
    yield Control("empty window: nothing is patched", "none", 0.0), of(empty)
    for site in _activation_sites(sweep):
        own, against = patcher.itself(Patch(resolve(site, model), 0, last), passes)
        control = Control("patched with its own activations, all layers", site, 0.0)
        yield control, of(own, summed(reference, against))
    everything = tuple(slot for slot in slots(model) if slot.path in patcher.different)
    if everything:
        restored, _ = patcher.run([patcher.restoring(everything)], passes)
        yield Control("every parameter restored", "everything", 1.0), of(restored)
    whole = _whole(model)
    if whole is None:  # the architecture lacks a part of it in some layer: there is no such control
        return
    arm = writing(whole, record(patcher.donor, passes.own.tokens, whole.hooks), None)
    logits, _ = patcher.run([arm], passes, control=True)
    yield Control("all layers at once", whole.site.name, None), of(logits)
    rest = tuple(slot for slot in everything if set(slot.roles) & set(REMAINDER))
    logits, _ = patcher.run([patcher.restoring(rest, above=arm)], passes)
    name = "all layers at once, and all parameters outside attention and MLP keys"
    yield Control(name, whole.site.name, 1.0), of(logits)


def _shift(sweep: Sweep, site: str, passes: Passes, reference: Reference) -> Float[Tensor, " fact"]:
    """How far noise at the site's places, in all layers, moves what is scored of each fact (squared difference).

    Where it does not, no patch there could have brought anything back, and 0 would say nothing about the models.
    """
    model = sweep.recipient
    patch = Patch(resolve(site, model), 0, model.cfg.n_layers - 1)
    trace = record(model, passes.own.tokens, patch.hooks)
    generator = torch.Generator().manual_seed(0)
    noisy = {hook: _with_noise(value, generator) for hook, value in trace.saved.items()}
    arm = writing(patch, replace(trace, saved=noisy), passes.where)
    logits, _ = sweep.patcher.run([arm, Arm(arm.start)], passes, control=True)
    unpatched = replace(reference, logits=logits[1])
    return summed(unpatched, logits[:1])["mse"][0]


def _with_noise(value: Tensor, generator: torch.Generator) -> Tensor:
    """The values, and as much again of noise; of values that are all the same, noise of 1."""
    size = value.float().std() if value.numel() > 1 else value.new_zeros(())
    noise = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
    return value + noise * torch.where(size > 0, size, torch.ones_like(size)).to(value.dtype)


def _recoveries(parts: Sequence[Measured], floor: dict[str, float]) -> dict[str, float]:
    found = {}
    for metric in METRICS:
        patched, baseline = (
            torch.cat([whole(held)[metric][0] for held in column]) for column in zip(*parts, strict=True)
        )
        defined = baseline > floor[metric]
        total = float(baseline[defined].sum())
        found[metric] = 1 - float(patched[defined].sum()) / total if bool(defined.any()) else float("nan")
    return found


def _whole(model: TransformerBridge) -> Patch | None:
    """All that the blocks add to the residual stream: by coefficients and attention, or (experts) by their outputs."""
    last = model.cfg.n_layers - 1
    for name in (BOTH, OUTPUTS):
        try:
            site = resolve(name, model)
        except UserError:
            continue
        if len(site.layers()) == model.cfg.n_layers:
            return Patch(site, 0, last)
    return None
