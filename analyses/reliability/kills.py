"""kill -9 at random moments of every verb: does the run that is gone on with end with the bytes of a whole one?

    python analyses/reliability/kills.py --kills 250 --json analyses/results/reliability_kills.json

Each run happens in a process of its own, forked from one that has everything loaded. It is killed after a random share
of the time that it takes, gone on with and killed again, up to three times, then let to its end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import JOBS, ending, models, script

KILLS_A_RUN = 3


def forked(do: Callable[[], Any]) -> int:
    """A copy of this process that does this and nothing else; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        do()
        code = 0
    finally:
        os._exit(code)


def killed(do: Callable[[], Any], after: float) -> bool:
    """Whether it was killed after that time, rather than done before."""
    child = forked(do)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def to_its_end(do: Callable[[], Any]) -> bool:
    """Whether it came to its end."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(do), 0)[1]) == 0


def session(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many kills, and how each run ended."""
    held, draw = models(), random.Random(seed)
    whole, took = {}, {}
    for name, job in JOBS.items():
        began = time.perf_counter()
        assert to_its_end(lambda: job(held, folder / f"whole-{name}")), name  # noqa: B023
        took[name], whole[name] = time.perf_counter() - began, ending(folder / f"whole-{name}")
    kills, wrong, runs = Counter[str](), [], 0
    names = list(JOBS)
    while kills.total() < count:
        name = names[runs % len(names)]
        out = folder / f"{runs}"
        for _ in range(KILLS_A_RUN):
            kills[name] += killed(lambda: JOBS[name](held, out), draw.random() * took[name])  # noqa: B023
        ended = to_its_end(lambda: JOBS[name](held, out))  # noqa: B023
        found = ending(out) if ended else {}
        if found != whole[name]:
            odd = sorted(file for file in {*found, *whole[name]} if found.get(file) != whole[name].get(file))
            wrong.append({"verb": name, "run": runs, "ended": ended, "files": odd})
            print(f"run {runs}, {name}: {'other files: ' + ', '.join(odd) if ended else 'does not end'}", flush=True)
        shutil.rmtree(out, ignore_errors=True)
        runs += 1
    return {"kills": kills.total(), "runs": runs, "by verb": dict(kills), "wrong": wrong}


if __name__ == "__main__":
    script(__doc__, "kills", 250, session)
