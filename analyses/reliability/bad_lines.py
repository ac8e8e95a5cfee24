"""Some hundreds of kinds of bad input, given to the command line one by one: is each answered well?

    python analyses/reliability/bad_lines.py [--only SUBSTRING] [--list] [--all] [--json PATH]

Answered well is: exit code 2; exactly one line on stderr that begins with `mechunlearn: `, says something and names the
thing at fault; no traceback; within 20 s; with less than 3 GB of memory more; nothing made or changed in the folder.
All cases run in the package itself, in two processes that are started again where one dies or hangs, each case in a
fresh folder with small good ingredients. What else comes:

    defect  an exception, or the last-resort line of the command line (exit code 70)
    hang    not finished in time            died    the process ended (memory, a crash)
    silent  exit code 0                     greedy  more memory than that
    left    files made or changed           poor    no line or many, without content or the thing at fault
    odd     another exit code
"""  # fmt: skip

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing as mp
import os
import queue
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import bad_files as bad
from bad_cases import GOOD, KIND, Case, cases, short, with_option

LIMIT = 20.0  # seconds a case
GRACE = 10.0  # seconds more, after which a process that hears no signal is killed
MEMORY = 3.0  # GB a case
SPACE = 8 * 2**30  # bytes of addresses a process may have beyond what it has when it starts working
PROCESSES = 2
LEAST = 25  # characters of an answer, with its first word
KINDS = ("well", "defect", "hang", "died", "silent", "greedy", "left", "poor", "odd")


@dataclass
class Outcome:
    """How a case was answered; `told` is the message, or where it went wrong."""

    name: str
    line: str
    kind: str
    told: str
    seconds: float = 0.0
    gigabytes: float = 0.0
    noise: int = 0  # other lines on stderr
    length: int = 0  # of the answer


# --- one process that works


class TooLong(BaseException):
    """The time of a case is over; no library catches it."""


def tree() -> dict[str, tuple[int, int, str]]:
    """Everything in the current folder: size, time and target."""
    found = {}
    for place, folders, files in os.walk("."):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - names may hold what Path would tidy away
            told = os.lstat(path)
            folder = name in folders
            found[path] = (0 if folder else told.st_size, 0 if folder else told.st_mtime_ns, "")
    return found


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 2**20


def run_line(line: tuple[str, ...]) -> tuple[int | None, str, bool]:
    """(exit code, where it went wrong, whether it was too long)."""
    from mechunlearn.cli import app

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    faulthandler.dump_traceback_later(LIMIT + GRACE / 2, file=sys.__stderr__ or 2)
    try:
        app(list(line), prog_name="mechunlearn")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code)), "", False
    except TooLong as error:
        return None, where(error), True
    except BaseException as error:  # whatever it is: pyo3 panics are no Exceptions
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {short(text, 160)} [{where(error)}]", False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    return 0, "", False


def where(error: BaseException) -> str:
    """The deepest line of the package in a traceback, and the deepest of all."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "/mechunlearn/" in frame.filename]
    return " < ".join(
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
        for frame in (frames[-1:] + ours[-1:])
    )


def judge(
    case: Case, code: int | None, wrong: str, late: bool, stderr: str, changed: list[str], grown: float
) -> tuple[str, str]:
    """(kind, what is told of it)."""
    answers = [line for line in stderr.splitlines() if line.startswith("mechunlearn: ")]
    told = answers[-1].removeprefix("mechunlearn: ") if answers else ""
    if late:
        return "hang", wrong
    if wrong or code == 70 or "a defect of mechunlearn" in stderr or "Traceback (most recent" in stderr:
        return "defect", wrong or told or stderr.strip().splitlines()[-1]
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
    if case.tells and not any(word.lower() in told.lower() for word in case.tells if word):
        return "poor", f"does not name the thing at fault: {told}"
    return "well", told


def run_case(case: Case, errors: Path) -> Outcome:
    """Run a case in a fresh folder."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        os.chdir(folder)
        try:
            for name in ("facts.jsonl", "text.txt", "other.txt", "model", "after", "small"):
                Path(name).symlink_to(bad.ingredients() / name)
            case.make()
            was = tree()
            os.truncate(errors, 0)
            Path("/proc/self/clear_refs").write_text("5")
            before, began = memory("VmRSS"), time.perf_counter()
            code, wrong, late = run_line(case.line)
            seconds, grown = time.perf_counter() - began, memory("VmHWM") - before
            sys.stdout.flush()
            sys.stderr.flush()
            now = tree()
            changed = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
            stderr = errors.read_text(encoding="utf-8", errors="replace").lstrip("\0")
            kind, told = judge(case, code, wrong, late, stderr, changed, grown)
            noise = len([line for line in stderr.splitlines() if line.strip() and not line.startswith("mechunlearn: ")])
            line = " ".join(short(word, 60) for word in case.line)
            return Outcome(case.name, line, kind, short(told, 400), seconds, grown, noise, len(told))
        finally:
            os.chdir(home)


def work(connection: Connection, errors: Path, home: Path) -> None:
    """Answer names of cases with outcomes, until there are no more."""
    os.setpgrp()
    for number, target in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(home)
    known = {case.name: case for case in cases()}
    run_case(Case("", tuple(GOOD["evaluate"].replace("--out out", "").split())), errors)  # imports
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + SPACE, space + SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send("ready")
    while (name := connection.recv()) is not None:
        connection.send(run_case(known[name], errors))


# --- the pool


class Worker:
    """A process that works, started again when it dies."""

    def __init__(self, number: int, folder: Path) -> None:
        self.errors, self.home = folder / f"{number}.err", folder / f"home-{number}"
        self.home.mkdir()
        self.errors.touch()
        self.process: Any = None

    def start(self) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.errors, self.home))
        self.process.start()
        theirs.close()
        try:
            ready = self.connection.poll(180) and self.connection.recv() == "ready"
        except EOFError:
            ready = False
        if not ready:
            raise RuntimeError(f"the worker did not start: {self.errors.read_text(errors='replace')[-2000:]}")

    def run(self, case: Case) -> Outcome:
        if self.process is None:
            self.start()
        line = " ".join(short(word, 60) for word in case.line)
        try:
            self.connection.send(case.name)
            if self.connection.poll(LIMIT + 2 * GRACE):
                found = self.connection.recv()
                if found.kind == "hang":
                    self.stop()
                return found
            kind, told = "hang", self.last_words()
        except (EOFError, OSError):
            kind, told = "died", f"exit code {self.code()}; {self.last_words()}"
        self.stop()
        return Outcome(case.name, line, kind, told)

    def code(self) -> int | None:
        """The exit code of a process that ended."""
        self.process.join(5)
        return self.process.exitcode

    def last_words(self) -> str:
        """The last lines of the package in what faulthandler wrote, else the last lines."""
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        ours = [line.strip() for line in lines if "/mechunlearn/" in line]
        return short(" | ".join(ours[:2] or lines[-2:]), 300)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # with what it may have started
            self.process.join()
            self.process = None
            shutil.rmtree(self.home, ignore_errors=True)
            self.home.mkdir()


def prepare(folder: Path) -> None:
    """One finished run of each kind, by the command line itself."""
    sys.stdout = open(folder / "prepare.out", "w")  # noqa: SIM115, PTH123
    os.chdir(folder)
    bad.make_ingredients(folder)
    bad.make_small(folder)
    (folder / "runs").mkdir()
    for command, line in (
        ("unlearn", GOOD["unlearn"]),
        *((name, line) for name, line in GOOD.items() if name != "unlearn"),
    ):
        out = f"runs/{KIND[command]}"
        code, wrong, _ = run_line(with_option(line, "out", out))
        if code != 0:
            raise RuntimeError(f"{command} failed on good input: {code} {wrong}")
        if command == "unlearn":
            (folder / "after").symlink_to("runs/unlearning/model")


def run_all(chosen: list[Case], tell: Callable[[Outcome], None]) -> list[Outcome]:
    """Every case, by two processes."""
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in chosen:
        waiting.put(case)
    found: list[Outcome] = []

    def serve(worker: Worker) -> None:
        while not waiting.empty():
            try:
                outcome = worker.run(waiting.get_nowait())
            except queue.Empty:
                break
            found.append(outcome)
            tell(outcome)
        worker.stop()

    with tempfile.TemporaryDirectory(prefix="bad-lines-") as place:
        folder = Path(place)
        (folder / "good").mkdir()
        os.environ[bad.WHERE] = str(folder / "good")
        first = mp.get_context("spawn").Process(target=prepare, args=(folder / "good",))
        first.start()
        first.join()
        if first.exitcode:
            raise SystemExit("good input was refused: see above")
        workers = [Worker(number, folder) for number in range(PROCESSES)]

        def end(*_: object) -> None:
            for worker in workers:
                worker.stop()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(130)

        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, end)
        threads = [threading.Thread(target=serve, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if len(found) != len(chosen):
        raise SystemExit(f"{len(chosen) - len(found)} cases were not run: see above")
    return sorted(found, key=lambda outcome: [case.name for case in chosen].index(outcome.name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Bad input, given to the command line.")
    parser.add_argument("--only", help="cases whose names hold this")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    parser.add_argument("--json", type=Path, help="write figures here")
    parser.add_argument("--all", action="store_true", help="print the good answers as well")
    given = parser.parse_args()
    chosen = [case for case in cases() if given.only is None or given.only in case.name]
    if given.list:
        print("\n".join(case.name for case in chosen))
        return
    for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)

    def tell(outcome: Outcome) -> None:
        if given.all or outcome.kind != "well":
            print(
                f"{outcome.kind:>6}  {outcome.name}\n        {short(outcome.line, 200)}\n        {outcome.told}",
                flush=True,
            )

    found = run_all(chosen, tell)
    count = Counter(outcome.kind for outcome in found)
    print(f"\n{'cases':>8} {len(found)}")
    for kind in KINDS:
        print(f"{kind:>8} {count[kind]}")
    failing = [asdict(outcome) for outcome in found if outcome.kind != "well"]
    slowest = max((outcome.seconds for outcome in found), default=0.0)
    figures = {
        "cases": len(found),
        **{kind: count[kind] for kind in KINDS},
        "slowest_seconds": slowest,
        "failing": failing,
    }
    print(f"slowest: {slowest:.1f} s; answers of more than 1,000 characters: {sum(one.length > 1000 for one in found)}")
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
