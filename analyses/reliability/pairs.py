"""Two processes on one folder at once: one does the work, the other says who does, or reads what is finished.

    python analyses/reliability/pairs.py --pairs 40 --json analyses/results/reliability_pairs.json

The two begin within a random share of the time that one run takes. Whatever comes first, neither may end in anything
but its result or one `UserError`, and the folder ends with the bytes of a run that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jobs import JOBS, ending, models, script
from kills import forked, to_its_end

from mechunlearn.errors import UserError

RESULT, TOLD = "result", "told who works there"


def tried(name: str, held: dict[str, Any], out: Path, note: Path) -> None:
    """One of the two; what came of it is noted."""
    try:
        JOBS[name](held, out)
        said = RESULT
    except UserError as error:
        said = TOLD if "in use by process" in str(error) else f"UserError: {error}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    note.write_text(said, encoding="utf-8")


def session(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many pairs, and what came of each."""
    held, draw = models(), random.Random(seed)
    whole, took, outcomes, wrong = {}, {}, Counter[str](), []
    for number in range(count):
        name = list(JOBS)[number % len(JOBS)]
        if name not in whole:
            began = time.perf_counter()
            to_its_end(lambda: JOBS[name](held, folder / f"whole-{name}"))  # noqa: B023
            took[name], whole[name] = time.perf_counter() - began, ending(folder / f"whole-{name}")
        out, notes = folder / f"{number}", [folder / f"{number}-{one}.txt" for one in "ab"]
        first = forked(lambda: tried(name, held, out, notes[0]))  # noqa: B023
        time.sleep(draw.choice([0.0, draw.random() * took[name]]))
        second = forked(lambda: tried(name, held, out, notes[1]))  # noqa: B023
        for child in (first, second):
            os.waitpid(child, 0)
        said = [note.read_text(encoding="utf-8") if note.exists() else "no word" for note in notes]
        outcomes[" / ".join(sorted(said))] += 1
        same = ending(out) == whole[name]
        if not ({*said} <= {RESULT, TOLD} and RESULT in said and same):
            wrong.append({"verb": name, "pair": number, "said": said, "same bytes": same})
            print(f"pair {number}, {name}: {said}, {'same' if same else 'other'} bytes", flush=True)
    return {"pairs": count, "outcomes": dict(outcomes), "wrong": wrong}


if __name__ == "__main__":
    script(__doc__, "pairs", 40, session)
