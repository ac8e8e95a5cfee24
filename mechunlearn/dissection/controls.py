"""Controls: patches whose result is known beforehand, measured with every dissection on a few of its facts."""

from __future__ import annotations

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
from .metrics import Reference, distances
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
    model = sweep.recipient
    last = model.cfg.n_layers - 1
    patcher = sweep.patcher
    passes, reference = sweep.record(tokens)
    plain = passes.plain[None]
    empty, _ = patcher.run([Arm(0)], passes, control=True)
    rows: list[dict[str, object]] = []

    def add(control: str, site: str, logits: Tensor, expected: float | None, against: Tensor = plain) -> None:
        for metric, value in _recoveries(reference, logits, against, floor).items():
            passed = None if expected is None or np.isnan(value) else bool(abs(value - expected) <= TOLERANCE)
            tolerance = None if expected is None else TOLERANCE
            rows.append(dict(zip(COLUMNS, [control, site, metric, expected, value, tolerance, passed], strict=True)))

    add("empty window: nothing is patched", "none", empty, 0.0)
    for site in sorted({patch.site.name for patch in sweep.chosen if patch.site.kind == "activation"}):
        own, against = patcher.itself(Patch(resolve(site, model), 0, last), passes)
        add("patched with its own activations, all layers", site, own, 0.0, against)
    everything = tuple(slot for slot in slots(model) if slot.path in patcher.different)
    if everything:
        add("every parameter restored", "everything", patcher.run([patcher.restoring(everything)], passes)[0], 1.0)
    whole = _whole(model)
    if whole is None:  # the architecture lacks a part of it in some layer: there is no such control
        return pd.DataFrame(rows, columns=COLUMNS)
    arm = writing(whole, record(patcher.donor, passes.own.tokens, whole.hooks), None)
    add("all layers at once", whole.site.name, patcher.run([arm], passes, control=True)[0], None)
    rest = tuple(slot for slot in everything if set(slot.roles) & set(REMAINDER))
    logits, _ = patcher.run([patcher.restoring(rest, above=arm)], passes)
    add("all layers at once, and all parameters outside attention and MLP keys", whole.site.name, logits, 1.0)
    return pd.DataFrame(rows, columns=COLUMNS)


def _recoveries(reference: Reference, logits: Tensor, against: Tensor, floor: dict[str, float]) -> dict[str, float]:
    found = {}
    patched, baseline = distances(reference, logits), distances(reference, against)
    for metric in patched:
        defined = baseline[metric][0] > floor[metric]
        total = float(baseline[metric][0][defined].sum())
        found[metric] = 1 - float(patched[metric][0][defined].sum()) / total if bool(defined.any()) else float("nan")
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
