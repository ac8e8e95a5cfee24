"""A suite of attacks in a process of its own, which kills itself with SIGKILL at the n-th unit that it would keep.

    python -m tests.attacks.interrupted FOLDER N BEFORE|AFTER
"""  # fmt: skip

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mechunlearn.attacks import Attacks, Noise, Prompts, Relearn, attack
from mechunlearn.runs import RunFolder

from .toys import make_facts, toy

SUITE = (Relearn(epochs=1, batch_size=8, learning_rate=0.01), Noise(draws=1), Prompts(frames=("complete", "prefix")))
UNITS = 7  # two models each, prompts on the model before too


def go(folder: Path | None, **changed: Any) -> Attacks:
    given: dict[str, Any] = {"before": toy(seed=2), "never_knew": toy(seed=1), "progress": False}
    facts = changed.pop("facts", make_facts(2))
    return attack(toy(), facts, suite=SUITE, run=folder, **given | changed)


def die_at(number: int, after: bool) -> None:
    kept, calls = RunFolder.finish_unit, 0

    def counted(self: RunFolder, name: str, frame: pd.DataFrame, of: Sequence[str] = ()) -> None:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        kept(self, name, frame, of)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.finish_unit = counted


if __name__ == "__main__":
    die_at(int(sys.argv[2]), sys.argv[3] == "AFTER")
    go(Path(sys.argv[1]))
