"""The committed notebooks: clean to look at, and the same figures when they are run again."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from .notebooks import FOLDER, LARGEST, differences, execute, faults, key_figures, read

NOTEBOOKS = sorted(FOLDER.glob("[!.]*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def test_there_are_notebooks():
    assert NOTEBOOKS


@each
def test_it_is_committed_with_its_outputs_and_nothing_else(path: Path):
    assert faults(read(path)) == []


@each
def test_it_shows_key_figures(path: Path):
    assert key_figures(read(path))


@each
def test_it_is_small(path: Path):
    assert path.stat().st_size <= LARGEST


@each
@pytest.mark.notebook
def test_it_runs_from_top_to_bottom_and_its_key_figures_hold(path: Path, monkeypatch: pytest.MonkeyPatch):
    if not can_draw():
        pytest.skip("notebooks draw their figures as PNG too, which needs kaleido and a Chromium or Chrome")
    # Thinking in several threads would change the order of sums, and starve the other worker.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fresh = execute(path)
    assert faults(fresh) == []
    assert differences(key_figures(read(path)), key_figures(fresh)) == []


def can_draw() -> bool:
    """Whether plotly can make PNGs here."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    return importlib.util.find_spec("kaleido") is not None and any(map(shutil.which, browsers))
