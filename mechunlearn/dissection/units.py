"""The pieces of a sweep: batches of facts, each measured once and kept, so that a sweep can be interrupted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..facts import Tokens
from ..runs import RunFolder
from .measured import Measured, measure_batch
from .metrics import METRICS
from .sweep import Sweep

FACTS_AT_ONCE = 64

Pieces = list[tuple[list[int], Measured]]  # (rows of the facts, what was measured on them)


def batches(tokens: Tokens, max_tokens: int) -> list[list[int]]:
    """Rows that are measured together: of like length, so that little is padding."""
    lengths = tokens.attention.sum(1)
    order = torch.argsort(lengths, stable=True).tolist()
    found: list[list[int]] = []
    for row in order:
        full = not found or (len(found[-1]) + 1) * int(lengths[row]) > max_tokens
        if full or len(found[-1]) == FACTS_AT_ONCE:
            found.append([])
        found[-1].append(row)
    return found


def measure(sweep: Sweep, tokens: Tokens, folder: RunFolder | None, progress: bool) -> Pieces:
    """Measure every patch on every fact, going on where an earlier run of the folder ended."""
    device = next(sweep.recipient.parameters()).device
    planned = batches(tokens, sweep.max_tokens)
    bar = tqdm(total=len(planned) * len(sweep.chosen), desc="dissect", unit="patch", disable=not progress, leave=False)
    measured = []
    with bar:
        for number, rows in enumerate(planned):
            kept = folder.unit(f"{number:05d}") if folder is not None else None
            if kept is not None:
                measured.append((rows, _unpack(kept)))
                bar.update(len(sweep.chosen))
                continue
            found = measure_batch(sweep, tokens[rows].trim().to(device), bar.update)
            if folder is not None:
                folder.finish_unit(f"{number:05d}", _pack(found))
            measured.append((rows, found))
    return measured


def _pack(found: Measured) -> pd.DataFrame:
    """One row: arrays as raw float64 bytes, so that what is read again is bit for bit what was measured."""
    row: dict[str, Any] = {"facts": len(found.said["donor"])}
    for metric in METRICS:
        row[f"distances:{metric}"] = np.ascontiguousarray(found.distances[metric], dtype=np.float64).tobytes()
        row[f"baseline:{metric}"] = np.ascontiguousarray(found.baseline[metric], dtype=np.float64).tobytes()
        row[f"noise:{metric}"] = found.noise[metric]
    for model in ("donor", "recipient"):
        row[f"logprob:{model}"] = np.ascontiguousarray(found.logprob[model], dtype=np.float64).tobytes()
        row[f"said:{model}"] = found.said[model]
        row[f"right:{model}"] = found.right[model]
    row["patched"] = np.ascontiguousarray(found.patched).tobytes()
    return pd.DataFrame([row])


def _unpack(kept: pd.DataFrame) -> Measured:
    row = kept.iloc[0]
    models = ("donor", "recipient")
    return Measured(
        {m: np.frombuffer(row[f"distances:{m}"]).reshape(-1, int(row["facts"])) for m in METRICS},
        {m: np.frombuffer(row[f"baseline:{m}"]) for m in METRICS},
        {m: float(row[f"noise:{m}"]) for m in METRICS},
        {m: np.frombuffer(row[f"logprob:{m}"]) for m in models},
        {m: [[int(token) for token in fact] for fact in row[f"said:{m}"]] for m in models},
        {m: [bool(right) for right in row[f"right:{m}"]] for m in models},
        np.frombuffer(row["patched"], np.int32).reshape(-1, sum(map(len, row["said:donor"]))),
    )
