"""What came of the scripts of this folder, as one page of tables.

    python analyses/reliability/page.py

Reads `reliability_*.json` in `analyses/results`, as `make reliability` leaves them, and writes `reliability.md` there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

RESULTS = Path(__file__).parents[1] / "results"
MARKED = ("cases", "well", "failing")  # what a script of wrong input says
WORDS = {
    "bad_lines": "wrong input on the command line: options, files, checkpoints, templates, run folders",
    "bad_calls": "wrong arguments from Python, every public function",
    "mutated_folders": "run folders in which one thing was changed, in `report` and `load`",
}
HEAD = """# How hard it is to break

Made by `make reliability` on the organism (two cores, one thread a process); each script stays in
`analyses/reliability` and can be run again, with another seed, too.

"""
WRONG = """
A case of wrong input ends well where it is refused in one line that names what was wrong, or where it is no fault at
all and the work is done. Anything else is counted: a traceback, no end within its time, a process that died or took
too much memory, silence (wrong input was taken), files or a model left changed, a message that says nothing.
"""
MEMORY = """
## Memory with a vocabulary of 256,000

Two blocks, 31 MB of weights; passages of 250 words and more, each verb in its own process. `before` is what the process
held with both models opened, `peak` what it held at most, in GB.

"""
TESTED = """
## What tests hold

- A hostile page (20 payloads in the texts that a run keeps) in Chromium, without its content policy: nothing runs, and
  nothing is asked for (`tests/reporting/test_in_a_browser.py`).
- No connection is tried at import, nor by any verb; what a run folder holds of the machine is nothing: no path, no name
  of host or user, no variable (`tests/test_alone.py`).
- Every single line of what is changed for a time is interrupted once (`tests/test_undoing.py`).
"""


def read(name: str) -> Any:
    return json.loads((RESULTS / f"reliability_{name}.json").read_text(encoding="utf-8"))


def hard() -> Iterator[tuple[str, int, int, str]]:
    """What was done to running work: words, how often, how often it did not end as it should, and more to say."""
    found = read("interrupts")
    more = f"{found['gone on']} gone on with, to the same frames; {found['calls that ended first']} calls ended first"
    left = len(found["left something"]) + len(found["gone on and not the same"])
    yield "interrupts at random moments, nine verbs, one session", found["interrupts"], left, more
    found = read("kills")
    yield "kills at random moments", found["kills"], len(found["wrong"]), f"{found['runs']} runs ended with equal bytes"
    found = read("pairs")
    more = "; ".join(f"{count} × {said}" for said, count in found["outcomes"].items())
    yield "pairs of processes on one folder", found["pairs"], len(found["wrong"]), more


def wrong() -> Iterator[tuple[str, int, int, str]]:
    """What was given wrongly: words, cases, how many ended well, and how the others ended."""
    for name, words in WORDS.items():
        cases, well, failing = (read(name)[part] for part in MARKED)
        kinds = pd.Series([case["kind"] for case in failing], dtype=object).value_counts()
        yield words, cases, well, ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "–"


def failing() -> Iterator[str]:
    """Every case that did not end well."""
    for name in WORDS:
        for case in read(name)["failing"]:
            told = " ".join(str(case["told"]).split())
            yield f"- `{name}`, `{case['name']}`: {case['kind']}: {told[:200]}"


def main() -> None:
    done = pd.DataFrame(hard(), columns=["what was done", "times", "ended otherwise than it should", "more"])
    given = pd.DataFrame(wrong(), columns=["what was given", "cases", "ended well", "the others"])
    page = HEAD + done.to_markdown(index=False) + "\n" + WRONG + "\n" + given.to_markdown(index=False) + "\n"
    if odd := list(failing()):
        page += "\nThe others, one by one:\n\n" + "\n".join(odd) + "\n"
    page += MEMORY + pd.DataFrame(read("memory")).to_markdown(index=False) + "\n" + TESTED
    (RESULTS / "reliability.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
