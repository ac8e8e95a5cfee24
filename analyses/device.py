"""The same on an accelerator as on the CPU: every verb on the organism, in float32 and in bfloat16, side by side.

    python analyses/device.py --device cuda --json analyses/results/device.json

What must agree: numbers of a dissection within the noise floor's margin, shares of facts exactly but for a few ties,
weights after some steps of training closely. Prints a row a check, and how long either device took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mechunlearn as mu

FOUND = mu.Facts.builtin("organism")
ASKED = FOUND.with_items([*FOUND.forget[:24], *FOUND.near[:12], *FOUND.far[:12]])
TEXT = mu.organism_text()[:16]
QUIET: dict[str, Any] = {"progress": False}
TRAINED: dict[str, Any] = {"steps": 20, "batch_size": 16, "text": TEXT, "evaluate_every": 10, **QUIET}
Row = dict[str, Any]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, time.perf_counter() - began


def damaged(seed: int = 0) -> Any:
    """The organism, moved a little: on the CPU, the same for all."""
    model, draw = mu.load("organism", device="cpu"), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.original_model.parameters():
            parameter.add_(0.03 * parameter.std() * torch.randn(parameter.shape, generator=draw))
    return model


def both(verb: Callable[..., Any], device: str, **options: Any) -> tuple[Any, Any, float, float]:
    """What a verb gives on the CPU and on the device, and how long it took; the device's is called twice."""
    first, slow = timed(lambda: verb(device="cpu", **options))
    timed(lambda: verb(device=device, **options))  # what is built at the first call is not counted
    second, fast = timed(lambda: verb(device=device, **options))
    return first, second, slow, fast


def checks(device: str, folder: Path) -> Iterator[Row]:
    after = mu.save(damaged(), folder / "after")
    for dtype in ("float32", "bfloat16"):
        a, b, slow, fast = both(
            lambda **o: mu.dissect("organism", after, ASKED.forget, **QUIET, **o), device, dtype=dtype
        )
        keys = ["site", "first_layer", "last_layer", "question", "metric"]
        one, two = (r.frame.set_index(keys)["recovery"].sort_index() for r in (a, b))
        off = float(np.nanmax(np.abs(one - two)))
        passed = a.controls["passed"].dropna().all() and b.controls["passed"].dropna().all()
        undefined = int((one.isna() != two.isna()).sum())
        most = 0.02 if dtype == "float32" else 0.1
        yield {"check": f"dissect, {dtype}: recovery, every row", "off": off, "most": most,
               "more": f"controls {'passed' if passed else 'FAILED'}; {undefined} rows defined on one alone",
               "cpu": slow, "device": fast, "right": bool(passed)}  # fmt: skip
        a, b, slow, fast = both(
            lambda **o: mu.evaluate(after, ASKED, text=TEXT, before="organism", **QUIET, **o), device, dtype=dtype
        )
        one, two = (r.summary().set_index(["role", "measure"])["value"].sort_index() for r in (a, b))
        off = float((one - two).abs().drop(["answer_logprob", "rank"], level="measure", errors="ignore").max())
        yield {"check": f"evaluate, {dtype}: every mean", "off": off, "most": most, "cpu": slow, "device": fast}
    for method in ("npo", "rmu", "cir"):

        def verb(method: str = method, **options: Any) -> Any:
            model = mu.load("organism", **options)
            return mu.unlearn(model, method, ASKED.forget, ASKED.retain, retain_text=TEXT, **TRAINED)

        a, b, slow, fast = both(verb, device)
        where = {p.device.type for p in b.model.original_model.parameters()}
        one, two = (r.frame["forget_probability"].to_numpy() for r in (a, b))
        off = float(np.abs(one - two).max())
        yield {"check": f"unlearn, {method}, 20 steps: probability of the answers", "off": off, "most": 0.05,
               "more": f"model on {', '.join(where)}", "cpu": slow, "device": fast,
               "right": where == {torch.device(device).type}}  # fmt: skip
    suite = [mu.Relearn(epochs=1), mu.Prompts(), mu.Quantise()]
    others: dict[str, Any] = {"before": "organism", "never_knew": "organism:never-knew", **QUIET}
    a, b, slow, fast = both(lambda **o: mu.attack(after, ASKED, suite=suite, **others, **o), device)
    one, two = (r.summary().set_index(["attack", "setting"])["value"].sort_index() for r in (a, b))
    yield {"check": "attack: recall after each", "off": float((one - two).abs().max()), "most": 0.1, "cpu": slow,
           "device": fast}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in checks(options.device, Path(folder)):
            row["right"] = bool(row.get("right", True) and row["off"] <= row["most"])
            rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
            print(rows[-1], flush=True)
    if options.json:
        found = {"device": name, "torch": torch.__version__, "checks": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    raise SystemExit(not all(row["right"] for row in rows))


if __name__ == "__main__":
    main()
