"""Controls: patches whose result is known beforehand, measured with every dissection on a few of its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..facts import Tokens
from ..models import slots
from ..models.forward import record
from ..sites import resolve
from .metrics import distances
from .patches import Arm, Patch, writing
from .sweep import Sweep

BOTH, OUTPUTS = "mlp_coefficients+attention_output", "mlp_output+attention_output"
TOLERANCE = 1e-3
# With coefficients and attention given everywhere, the prediction still passes through these of the recipient's.
REMAINDER = ("value_vectors", "norms", "embedding", "final_norm", "unembedding", "other")
COLUMNS = ["control", "site", "metric", "expected", "measured", "tolerance", "passed"]


@torch.no_grad()
def measure_controls(sweep: Sweep, tokens: Tokens, floor: dict[str, float]) -> pd.DataFrame:
    """One row a control: what must come out, what did, and whether it is within the tolerance.

    `expected` is missing where there is no right value: then the control is a measurement that helps to read the
    others. Recoveries are ratios of means over the facts whose denominator lies above the noise floor.
    """
    found: dict[Control, list[Measured]] = {}
    for some in sweep.planned(tokens, len(tokens)):  # as many facts at a time as their logits allow
        for control, measured in _of_facts(sweep, tokens[some].trim()):
            found.setdefault(control, []).append(measured)
    rows: list[dict[str, object]] = []
    for control, parts in found.items():
        for metric, value in _recoveries(parts, floor).items():
            passed = None if control.expected is None or np.isnan(value) else abs(value - control.expected) <= TOLERANCE
            tolerance = None if control.expected is None else TOLERANCE
            told = [control.name, control.site, metric, control.expected, value, tolerance, passed]
            rows.append(dict(zip(COLUMNS, told, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


class Control(NamedTuple):
    """A patch, and what must come of it; None where there is no right value."""

    name: str
    site: str
    expected: float | None


class Measured(NamedTuple):
    """Distances by metric and fact: under the control's patch, and of what it is compared with."""

    patched: dict[str, Tensor]
    baseline: dict[str, Tensor]


def _of_facts(sweep: Sweep, tokens: Tokens) -> Iterator[tuple[Control, Measured]]:
    """Every control on these facts."""
    model, patcher = sweep.recipient, sweep.patcher
    last = model.cfg.n_layers - 1
    passes, reference = sweep.record(tokens)
    plain = distances(reference, passes.plain[None])

    def of(logits: Tensor, against: dict[str, Tensor] = plain) -> Measured:
        return Measured(distances(reference, logits), against)

    empty, _ = patcher.run([Arm(0)], passes, control=True)
    yield Control("empty window: nothing is patched", "none", 0.0), of(empty)
    for site in sorted({patch.site.name for patch in sweep.chosen if patch.site.kind == "activation"}):
        own, against = patcher.itself(Patch(resolve(site, model), 0, last), passes)
        control = Control("patched with its own activations, all layers", site, 0.0)
        yield control, of(own, distances(reference, against))
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


def _recoveries(parts: Sequence[Measured], floor: dict[str, float]) -> dict[str, float]:
    found = {}
    for metric in parts[0].patched:
        patched, baseline = (torch.cat([held[metric][0] for held in column]) for column in zip(*parts, strict=True))
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
