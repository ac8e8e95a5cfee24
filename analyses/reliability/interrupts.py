"""Ctrl-C at random moments of one session: what is left of it in the models, in torch and in the run folders?

    python analyses/reliability/interrupts.py --interrupts 1500 --json analyses/results/reliability_interrupts.json

One process calls the verbs again and again on the same three models, as a notebook does, and is interrupted at a random
moment of each call by the signal that Ctrl-C sends. Nothing may be left then: no hook, no gradient, no flag of a module
or a parameter, no other weights, no switch of torch; and a plain forward pass gives the same bits. Every hundredth
interrupted run folder is gone on with, and its frame compared with that of a run that nobody interrupted.
(`tests/test_undoing.py` interrupts at every single line of what changes things for a time.)
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jobs import JOBS, Job, models, script

import mechunlearn as mu
from mechunlearn.undoing import undone

GO_ON_EVERY = 100
CALLS: dict[str, Job] = {**JOBS, "load": lambda *_: mu.load("organism")}


class Watch:
    """What must be as it was."""

    def __init__(self, models: dict[str, Any]) -> None:
        self.models = models
        self.ids = torch.arange(5, 17)[None]
        self.before = self.seen()

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "gradients are computed": torch.is_grad_enabled(), "inference mode": torch.is_inference_mode_enabled(),
            "default precision": torch.get_default_dtype(), "function modes": torch._C._len_torch_function_stack(),
            "device of new tensors": torch.empty(0).device, "to be put back": len(undone.notes),
        }  # fmt: skip
        for name, model in self.models.items():
            found |= {f"{name}: {what}": value for what, value in _state(model).items()}
            with torch.no_grad():
                found[f"{name}: logits"] = model(self.ids).sum().item()
        return found

    def left(self) -> list[str]:
        """What is not as it was. A pass that fails is told by its error."""
        try:
            now = self.seen()
        except Exception as error:
            return [f"a plain pass fails: {type(error).__name__}: {error}"]
        return [what for what, value in now.items() if self.before[what] != value]


def _state(model: Any) -> dict[str, Any]:
    module = model.original_model
    parts = [*model.modules(), *module.modules()]
    parameters = list(module.parameters())
    return {
        "hooks": sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)
        + sum(len(getattr(part, "fwd_hooks", ())) for part in parts),
        "training": [part.training for part in parts],
        "own forward": sum("forward" in vars(part) for part in parts),
        "requires_grad": [parameter.requires_grad for parameter in parameters],
        "gradients": sum(parameter.grad is not None for parameter in parameters),
        "storage": [parameter.data_ptr() for parameter in parameters],
        "names": [name for name, _ in module.named_parameters()],
        "weights": sum(parameter.detach().double().sum().item() for parameter in parameters),
    }


def interrupted(call: Callable[[], Any], after: float) -> bool:
    """Whether the call was interrupted after that time, rather than done before."""
    ended = threading.Event()

    def interrupt() -> None:
        if not ended.wait(after):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        call()
        ended.set()
        thread.join()
        for _ in range(1000):  # one that comes too late comes here
            pass
        return False
    except KeyboardInterrupt:
        return True
    finally:
        ended.set()
        thread.join()


def frame_of(found: Any) -> pd.DataFrame:
    return found.frame.drop(columns=["seconds"], errors="ignore")


def session(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many interrupts, and what each left."""
    held = models()
    watch, draw = Watch(held), random.Random(seed)
    took, whole = {}, {}
    for name, verb in CALLS.items():
        began = time.perf_counter()
        whole[name] = verb(held, folder / f"whole-{name}")
        took[name] = time.perf_counter() - began
    counts, left, swallowed, gone_on = Counter(), [], 0, []
    done = 0
    while done < count:
        name = draw.choice(list(CALLS))
        out = folder / f"{done}-{name}"
        hit = interrupted(lambda: CALLS[name](held, out), draw.random() * took[name] * 0.95)  # noqa: B023
        swallowed += not hit
        found = watch.left()
        if found:
            left.append({"verb": name, "number": done, "left": found})
            print(f"{done} {name}: {'; '.join(found)}", flush=True)
        if hit:
            counts[name] += 1
            done += 1
            if done % GO_ON_EVERY == 0 and name != "load":
                same = frame_of(CALLS[name](held, out)).equals(frame_of(whole[name]))
                gone_on.append({"verb": name, "number": done, "same": bool(same)})
        shutil.rmtree(out, ignore_errors=True)
    wrong = left + [one for one in gone_on if not one["same"]]
    return {
        "interrupts": done, "by verb": dict(counts), "calls that ended first": swallowed, "gone on": len(gone_on),
        "wrong": wrong,
    }  # fmt: skip


if __name__ == "__main__":
    script(__doc__, "interrupts", 1500, session)
