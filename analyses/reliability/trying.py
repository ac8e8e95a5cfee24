"""What three scripts of bad input share: cases in two processes, a watchdog, a bound on memory, a summary.

A case ends well, or in one of these: `defect` (an exception that is no UserError), `hang` (no end in time), `died` (the
process ended), `silent` (bad input was accepted), `left` (files or a model's state were changed), `poor` (the message).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
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
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT = 20.0  # seconds a case
GRACE = 15.0  # seconds more, after which a process that hears no signal is killed
MEMORY = 12 * 2**30  # bytes of addresses of a process
PROCESSES = 2
LONGEST = 500  # characters of a message

Ready = Callable[[Path], Any]
Answer = Callable[[Any, str], tuple[str, str]]


@dataclass
class Outcome:
    """How a case ended, and what was said."""

    name: str
    kind: str
    told: str
    seconds: float = 0.0


class TooLong(BaseException):
    """The time of a case is over; no library catches it."""


# --- in the process that works


def tried(call: Callable[[], Any]) -> tuple[str, str, Any]:
    """("returned" | "refused" | "defect" | "hang", what was said, what was given back)."""
    from mechunlearn.errors import UserError

    def ring(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return "returned", "", call()
    except UserError as error:
        return "refused", str(error), None
    except TooLong as error:
        return "hang", where(error), None
    except BaseException as error:  # whatever it is: panics of Rust are no Exceptions
        return "defect", f"{type(error).__name__}: {short(error, 200)} [{where(error)}]", None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def where(error: BaseException) -> str:
    """The deepest line of the package in a traceback, and the deepest of all."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != HERE]
    ours = [frame for frame in frames if "/mechunlearn/" in frame.filename]
    places = [f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno} {f.name}" for f in (*ours[-1:], *frames[-1:])]
    return " > ".join(dict.fromkeys(places))


def short(value: object, most: int = 60) -> str:
    """In one line of at most so many characters, all of which can be printed."""
    try:
        text = " ".join((value if isinstance(value, str) else str(value)).split())
    except Exception as error:
        text = f"a {type(value).__name__} ({type(error).__name__})"
    text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= most else f"{text[: most - 10]}…({len(text)})"


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, and a hash of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else ""
    return found


def differing(was: dict[str, Any], now: dict[str, Any]) -> str:
    """What of two tables is another, in words; empty where nothing is."""
    odd = sorted(str(name) for name in {*was, *now} if was.get(name, "gone") != now.get(name, "gone"))
    return "" if not odd else f"{len(odd)} changed: {', '.join(odd[:4])}"


def work(connection: Connection, log: Path, home: Path, shared: Path, ready: Ready, answer: Answer) -> None:
    """Answer names of cases with outcomes, until there are no more."""
    os.setpgrp()
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    state = ready(shared)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send("ready")
    while (name := connection.recv()) is not None:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=home) as own:
            os.chdir(own)
            kind, told = answer(state, name)
            os.chdir(home)
        connection.send(Outcome(name, kind, short(told, 700), time.perf_counter() - began))


# --- the two processes


class Worker:
    """A process that works, started again when it dies."""

    def __init__(self, number: int, folder: Path, shared: Path, ready: Ready, answer: Answer) -> None:
        self.log, self.home = folder / f"{number}.log", folder / f"home-{number}"
        self.given = (shared, ready, answer)
        self.process: Any = None

    def start(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.log, self.home, *self.given))
        self.process.start()
        theirs.close()
        try:
            begun = self.connection.poll(300) and self.connection.recv() == "ready"
        except EOFError:
            begun = False
        if not begun:
            raise RuntimeError(f"the worker did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def run(self, name: str) -> Outcome:
        if self.process is None:
            self.start()
        process: Any = self.process
        try:
            self.connection.send(name)
            if self.connection.poll(3 * LIMIT + GRACE):  # a case may try three things
                return self.connection.recv()
            kind, told = "hang", "hears no signal"
        except (EOFError, OSError):
            process.join(5)
            kind, told = "died", f"exit code {process.exitcode}"
        self.stop()
        return Outcome(name, kind, f"{told}; {short(self.log.read_text(errors='replace')[-300:], 300)}")

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # with what it may have started
            self.process.join()
            self.process = None


def run_all(names: Sequence[str], make: Ready | None, ready: Ready, answer: Answer) -> list[Outcome]:
    """Every case. `make` fills a folder once, `ready` opens it in each process."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    found: list[Outcome] = []

    def serve(worker: Worker) -> None:
        while not waiting.empty():
            try:
                outcome = worker.run(waiting.get_nowait())
            except queue.Empty:
                break
            found.append(outcome)
            if outcome.kind != "well":
                print(f"{outcome.kind:>7}  {outcome.name}\n         {outcome.told}", flush=True)
        worker.stop()

    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        folder, shared = Path(place), Path(place) / "shared"
        shared.mkdir()
        if make is not None:
            first = mp.get_context("spawn").Process(target=make, args=(shared,))
            first.start()
            first.join()
            if first.exitcode:
                raise SystemExit("what all cases need could not be made: see above")
        workers = [Worker(number, folder, shared, ready, answer) for number in range(PROCESSES)]
        threads = [threading.Thread(target=serve, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(found, key=lambda outcome: names.index(outcome.name))


def options(told: str | None) -> argparse.ArgumentParser:
    """What the scripts can be told."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    parser.add_argument("--json", type=Path, help="write figures here")
    return parser


def session(
    given: argparse.Namespace, cases: Sequence[str], ready: Ready, answer: Answer, make: Ready | None = None
) -> None:
    """List or run the cases that are wanted; print and write what came of them; exit with 1 where any failed."""
    for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)
    names = [name for name in cases if given.only in name]
    if given.list:
        print("\n".join(names))
        return
    found = run_all(names, make, ready, answer)
    count = Counter(outcome.kind for outcome in found)
    print(f"\n{len(names)} cases: {', '.join(f'{n} {kind}' for kind, n in count.most_common())}")
    failing = [asdict(outcome) for outcome in found if outcome.kind != "well"]
    if given.json:
        figures = {"cases": len(names), "well": count["well"], "failing": failing}
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.exit(len(found) != len(names) or bool(failing))


HERE = Path(__file__).parent
