"""Two thousand kinds of bad input, given to the command line one by one: is each answered well?

    python analyses/reliability/bad_lines.py [--only SUBSTRING] [--list] [--json PATH]

Answered well is: exit code 2; exactly one line on stderr that begins with `mechunlearn: `, says something and names the
thing at fault; no traceback; in time; with less than 3 GB of memory more; nothing made or changed in the folder. Each
case runs in a fresh folder with small good ingredients. What else comes, beside what `trying.py` names:

    greedy  more memory than that      odd  another exit code
"""  # fmt: skip

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import bad_files as bad
from bad_cases import GOOD, KIND, Case, cases, with_option
from trying import options, session, tried

MEMORY = 3.0  # GB a case
LEAST = 25  # characters of an answer, with its first word
Known = dict[str, Case]


def make(shared: Path) -> None:
    """The ingredients, and one finished run of each kind, by the command line itself."""
    os.environ[bad.WHERE] = str(shared)
    os.chdir(shared)
    bad.make_ingredients(shared)
    bad.make_small(shared)
    (shared / "runs").mkdir()
    for command in ("unlearn", *(name for name in GOOD if name != "unlearn")):
        ended, said, code = given_to_the_line(with_option(GOOD[command], "out", f"runs/{KIND[command]}"))
        if ended != "returned" or code != 0:
            raise RuntimeError(f"{command} failed on good input: {code} {said}")
        if command == "unlearn":
            (shared / "after").symlink_to("runs/unlearning/model")


def ready(shared: Path) -> Known:
    os.environ[bad.WHERE] = str(shared)
    os.chdir(shared)
    with contextlib.redirect_stdout(io.StringIO()):
        given_to_the_line(tuple(GOOD["evaluate"].replace("--out out", "").split()))  # imports, which take a while
    return {case.name: case for case in cases()}


def given_to_the_line(line: tuple[str, ...]) -> tuple[str, str, Any]:
    """As `tried`; what is given back is the exit code."""
    from mechunlearn.cli import app

    def run() -> int:
        try:
            app(list(line), prog_name="mechunlearn")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(bool(end.code))
        return 0

    return tried(run)


def answer(known: Known, name: str) -> tuple[str, str]:
    """Run a case in the current folder."""
    case = known[name]
    if any(Path().iterdir()):
        raise RuntimeError(f"a case makes links and files, and {Path.cwd()} is not empty")
    for ingredient in ("facts.jsonl", "text.txt", "other.txt", "model", "after", "small"):
        if (bad.ingredients() / ingredient).exists():
            Path(ingredient).symlink_to(bad.ingredients() / ingredient)
    case.make()
    was, said = tree(), io.StringIO()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        ended, wrong, code = given_to_the_line(case.line)
    grown, now = memory("VmHWM") - before, tree()
    changed = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
    if ended != "returned":
        return ended, wrong
    return judged(case, code, said.getvalue(), changed, grown)


def judged(case: Case, code: int, stderr: str, changed: list[str], grown: float) -> tuple[str, str]:
    """How a case ended, and what is told of it."""
    answers = [line for line in stderr.splitlines() if line.startswith("mechunlearn: ")]
    told = answers[-1].removeprefix("mechunlearn: ") if answers else ""
    if code == 70 or "Traceback (most recent" in stderr:
        return "defect", told or stderr.strip()[-300:]
    if grown > MEMORY:
        return "greedy", f"{grown:.1f} GB; {told}"
    if code != 2:
        return ("silent" if code == 0 else "odd"), f"exit code {code}; {told}"
    if changed:
        return "left", f"{', '.join(changed[:4])}; {told}"
    if len(answers) != 1:
        return "poor", f"{len(answers)} answers: {stderr.strip()[-200:]}"
    if len(answers[0]) < LEAST:
        return "poor", f"says nothing: {told}"
    named = f"{told} {told.replace('_', '-')}".lower()  # options have other marks than the arguments that they become
    if case.tells and not any(word.lower() in named for word in case.tells if word):
        return "poor", f"does not name the thing at fault: {told}"
    return "well", told


def tree() -> dict[str, tuple[int, int]]:
    """Everything in the current folder: size and time; nothing is opened, for there are pipes among it."""
    found = {}
    for place, folders, files in os.walk("."):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - names may hold what Path would tidy away
            told = os.lstat(path)
            found[path] = (0, 0) if name in folders else (told.st_size, told.st_mtime_ns)
    return found


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 2**20


if __name__ == "__main__":
    sys.stdin.close()
    session(options(__doc__).parse_args(), [case.name for case in cases()], ready, answer, make)
