"""Which sites a model has: in which layers, of what shape, and how many places can be chosen among."""

from __future__ import annotations

import re

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from .checking import checked
from .models import Slot
from .site_names import spans
from .sites import Site, available, resolve, widths

MANY = 4  # parameters that a cell of the table names one by one


@checked
def site_table(model: TransformerBridge) -> pd.DataFrame:
    """Every named site that this architecture has.

    Returns:
        `site`, `kind`, `layers` ("0–3"; "outside" the blocks: one patch), `indices` (how many places can be chosen
        among: `site[0,3]`; 0 where none can), `shape` (of an activation at one position; of the parameters of the first
        of these layers, by name, or how many numbers they are).
    """
    count = widths(model)
    found = [resolve(name, model) for name, there in available(model).items() if there]
    wanted = {hook for site in found for hooks in site.hooks.values() for hook in hooks}
    with torch.no_grad():
        ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
        _, cache = model.run_with_cache(ids, names_filter=lambda hook: hook in wanted)
    rows = []
    for site in found:
        layers = site.layers()
        if site.kind == "activation":
            shape = str(tuple(cache[site.hooks[layers[0]][0]].shape[2:]))
        else:
            shape = _of_parameters(site)
        where = spans(layers) if site.layered else "outside"
        rows.append([site.name, site.kind, where, count.get(site.name, 0), shape])
    return pd.DataFrame(rows, columns=["site", "kind", "layers", "indices", "shape"])


def _of_parameters(site: Site) -> str:
    first = min(slot.layer for slot in site.slots)
    here = [slot for slot in site.slots if slot.layer == first] if site.layered else site.slots
    if len(here) > MANY:
        total = sum(slot.tensor.numel() for slot in here)
        return f"{len(here)} parameters, {total:,} numbers" + " a layer" * site.layered
    return ", ".join(f"{_short(slot)} {tuple(slot.tensor.shape)}" for slot in here)


def _short(slot: Slot) -> str:
    """A parameter's name without the block that it stands in."""
    return re.sub(r"^blocks\.\d+\.", "", slot.path)
