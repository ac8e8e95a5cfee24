"""Runs in processes of their own, which kill themselves with SIGKILL at chosen moments.

    python -m tests.unlearning.interrupted FOLDER CASE/MOMENT …

A moment is `what:number`: the number-th time (from 1) that the named thing happens, counted over the call. The run
of a case has the folder of that name; each moment is another call with it.
"""  # fmt: skip

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from mechunlearn import runs, training
from mechunlearn.facts import Facts
from mechunlearn.models import checkpoint
from mechunlearn.unlearning import (
    NPO,
    Budget,
    CircuitBreakers,
    GradientDifference,
    Layered,
    Unlearning,
    run,
    unlearn,
)
from mechunlearn.unlearning.loop import checkpoints, journal, stage

from .conftest import TEXT

OPTIONS: dict[str, Any] = {
    "text": TEXT, "steps": 8, "learning_rate": 2e-3, "batch_size": 4, "evaluate_every": 2, "progress": False,
}  # fmt: skip

# A budget under which the run goes back several times before it ends.
TIGHT: dict[str, Any] = {"learning_rate": 6e-3, "schedule": "constant", "budget": Budget(kl=0.02, halvings=5)}

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "npo": (NPO(), {}),
    "budget": (NPO(), TIGHT),
    "layered": (Layered(method=GradientDifference(), folds=2), {"steps": 4}),
    "lora": (CircuitBreakers(), {"steps": 6}),
}


def go(case: str, model: TransformerBridge, facts: Facts, folder: Path | None, **changed: Any) -> Unlearning:
    method, options = CASES[case]
    return unlearn(model, method, facts.forget, facts.retain, run=folder, **OPTIONS | options | changed)


# What may be interrupted: (owner, attribute) is called, and the process dies before or after the call.
PLACES: dict[str, tuple[Any, str, bool]] = {
    "write": (checkpoints.Save, "write", True),  # after a state was saved
    "replace": (Path, "replace", False),  # a file is written beside its place, not yet renamed
    "backward": (training.Trainer, "_update", False),  # in the middle of a step
    "bound": (training, "_bound", False),  # gradients are there, the weights have not moved
    "line": (journal, "_append", True),  # the log tells of an evaluation that no state was kept of
    "half": (journal, "_append", True),  # half a line of the log is written
    "measure": (stage.Watch, "measure", True),
    "tensors": (checkpoint, "save_torch_state_dict", True),  # the model's tensors are written, not yet in place
    "model": (run, "save", True),  # the model is in place, the run not marked as finished
    "finish": (runs.RunFolder, "finish", True),  # the run is finished, the state not yet removed
}


def die_at(what: str, number: int) -> None:
    owner, name, after = PLACES[what]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        last = calls == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        if last and what == "half":
            path, line = arguments
            arguments = (path, line[: len(line) // 2])
        found = original(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, counted)


def main() -> None:
    """Each call gets a process of its own, forked, so that imports cost once. Prints how each ended."""
    folder = Path(sys.argv[1])
    from .conftest import knowing_model, known_facts

    facts = known_facts()
    model = knowing_model(facts)
    for argument in sys.argv[2:]:
        case, moment = argument.split("/")
        child = os.fork()
        if child == 0:
            checkpoints.SHARE = 1.0  # however long it takes, so that what a call does is the same each time
            what, number = moment.split(":")
            die_at(what, int(number))
            go(case, model, facts, folder / case)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(argument, "killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
