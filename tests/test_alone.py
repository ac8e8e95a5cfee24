"""What stays on this machine: nobody is called, and run folders say nothing of it."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import mechunlearn as mu
from mechunlearn.facts import organism_text

ROOT = Path(__file__).parent.parent
FACTS = mu.Facts.builtin("organism")
FEW = FACTS.with_items([*FACTS.forget[:4], *FACTS.near[:3]])
QUIET = {"progress": False}

CALLS = """
import pkgutil, socket, sys
called = []
real = socket.socket.connect
socket.socket.connect = lambda self, address: called.append(address)
socket.getaddrinfo = lambda *address, **_: called.append(address) or []
import importlib, tempfile, mechunlearn
for module in pkgutil.walk_packages(mechunlearn.__path__, "mechunlearn."):
    importlib.import_module(module.name)
from tests.test_alone import run_everything
from pathlib import Path
with tempfile.TemporaryDirectory() as folder:
    run_everything(Path(folder))
print(len(sys.modules), called)
"""


def run_everything(folder: Path) -> None:
    """Every verb once, each with a run folder, and the page about them."""
    before = mu.load("organism")
    forget, near = FEW.forget, FEW.near
    options = {"steps": 1, "batch_size": 2, "run": folder / "npo", **QUIET}
    after = mu.unlearn(before, "npo", forget, near, text=organism_text()[:2], **options).model
    mu.dissect(before, after, forget, sites="norms", windows="all", run=folder / "npo" / "dissection", **QUIET)
    mu.attack(after, FEW, suite=["quantise"], before=before, run=folder / "attacks", **QUIET)
    mu.evaluate(str(folder / "npo" / "model"), FEW, before=before, letters=False, max_new_tokens=2,
                run=folder / "evaluation", **QUIET)  # fmt: skip
    mu.relearn(after, forget[:1], forget[1:2], settings=mu.Relearn(epochs=1), run=folder / "relearned", **QUIET)
    mu.report(folder)


@pytest.mark.slow
def test_nobody_is_called_at_import_or_by_any_verb():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)  # nothing but the package itself keeps it at home
    command = [sys.executable, "-c", CALLS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(" []"), done.stdout


def test_run_folders_say_nothing_of_the_machine(tmp_path):
    """No name of a user, a host, a process or a folder, in any byte of any file."""
    home = tmp_path / "somebodys-home"
    run_everything(home)
    secrets = {
        "the folder": str(home), "its name": home.name, "where tests run": str(tmp_path.parent), "here": str(ROOT),
        "the host": socket.gethostname(), "the machine": platform.node(), "home": str(Path.home()),
    }  # fmt: skip
    user = getpass.getuser()
    files = [file for file in home.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        held = file.read_bytes()
        told = [what for what, secret in secrets.items() if len(secret) > 5 and secret.encode() in held]
        if file.name == "report.html":  # it is called like the folder that it is about
            told = [what for what in told if what != "its name"]
        assert not told, (file.relative_to(home), told)
        assert f"/{user}/".encode() not in held, file
    told = json.loads((home / "npo" / "run.json").read_text())["versions"]
    assert set(told) == {"python", "machine", "code", *(n for n in told if n not in ("python", "machine", "code"))}
    assert told["machine"] == platform.machine()  # x86_64 or arm64: numbers depend on it


def test_nothing_of_a_lock_is_left(tmp_path):
    mu.evaluate("organism", FEW, measures="recall", run=tmp_path / "run", **QUIET)
    assert not [file.name for file in (tmp_path / "run").rglob(".*")]
