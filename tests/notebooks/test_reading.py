"""What the notebooks' tests go by: they see each fault, and which figures count as equal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, strategies as st
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from .notebooks import TAG, differences, execute, faults, key_figures


def shown(value: str, **metadata: object) -> NotebookNode:
    """A notebook of one cell, the first that was run, with this as its result."""
    result = new_output("execute_result", data={"text/plain": value}, execution_count=1)
    return new_notebook(cells=[new_code_cell("1", outputs=[result], execution_count=1, metadata=metadata)])


def written(text: str, name: str = "stdout") -> NotebookNode:
    stream = new_output("stream", name=name, text=text)
    return new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("1", outputs=[stream], execution_count=1)])


def test_equal_figures():
    assert differences({"a": (0.5, 0.1), "b": (3.0, 1.0)}, {"a": (0.5, 0.1), "b": (3.0, 1.0)}) == []


def test_within_the_committed_tolerance():
    assert differences({"a": (0.5, 0.1), "b": (3.0, 1.0)}, {"a": (0.59, 0.0), "b": (2.0, 0.0)}) == []


@pytest.mark.parametrize("now", [0.39, 0.61, float("nan"), float("inf")])
def test_beyond_tolerance(now: float):
    (line,) = differences({"a": (0.5, 0.1)}, {"a": (now, 5.0)})
    assert line.startswith("a: ")
    assert "committed 0.5 (± 0.1)" in line


def test_a_figure_that_came_or_went():
    assert differences({"a": (0.0, 0.1)}, {"b": (0.0, 0.1)}) == [
        "a: no longer there",
        "b: not in the committed notebook",
    ]


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.floats(-9, 9), st.floats(0, 1)), max_size=4), st.floats(-1, 1))
def test_a_figure_may_move_by_its_tolerance_and_no_further(committed: dict[str, tuple[float, float]], part: float):
    moved = {name: (value + 0.99 * part * tolerance, 0.0) for name, (value, tolerance) in committed.items()}
    assert differences(committed, moved) == []
    away = {name: (value + tolerance + 0.001, 0.0) for name, (value, tolerance) in committed.items()}
    assert len(differences(committed, away)) == len(committed)


def test_key_figures_have_a_common_tolerance_or_their_own():
    found = key_figures(shown("{'recall': 0.25, 'norm': (12, 2.5)}", tags=[TAG]))
    assert found == {"recall": (0.25, 0.1), "norm": (12.0, 2.5)}


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        (shown("{'a': 1}"), "0 cells have the tag"),
        (new_notebook(cells=shown("{'a': 1}", tags=[TAG]).cells * 2), "2 cells have the tag"),
        (new_notebook(cells=[new_code_cell("a = 1", metadata={"tags": [TAG]})]), "does not end in an expression"),
        (shown("{'a': np.float64(1.0)}", tags=[TAG]), "plain numbers"),
        (shown("{'a': nan}", tags=[TAG]), "plain numbers"),
        (shown("[1.0]", tags=[TAG]), "must end in a dict"),
        (shown("{}", tags=[TAG]), "must end in a dict"),
        (shown("{'a': 'high'}", tags=[TAG]), "neither a number"),
        (shown("{'a': (1, 2, 3)}", tags=[TAG]), "neither a number"),
    ],
)
def test_what_are_no_key_figures(notebook: NotebookNode, message: str):
    with pytest.raises(ValueError, match=message):
        key_figures(notebook)


def test_a_clean_notebook_has_no_faults():
    assert faults(written("Recall: 0.95 of 80 facts, 5 % off; see https://example.org/home/of and a/tmp/b\n")) == []


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        ("careful", "stderr", "stderr"),
        ("steps:  45%|####", "stdout", "progress"),
        ("3/10 [00:01<00:02, 3.2it/s]", "stdout", "progress"),
        ("10\r20\r30\n", "stdout", "progress"),
        ("━━━━╸", "stdout", "progress"),
        ("/home/someone/models", "stdout", "absolute path"),
        ("saved to '/tmp/xyz/run'", "stdout", "absolute path"),
        ("file:///Users/me/x", "stdout", "absolute path"),
        (r"in C:\models", "stdout", "absolute path"),
    ],
)
def test_debris_and_paths_are_faults(text: str, name: str, fault: str):
    (found,) = faults(written(text, name))
    assert fault in found


def test_paths_within_figures_are_faults_and_bytes_of_pictures_are_none():
    notebook = shown("{'a': 1}")
    notebook.cells[0].outputs[0].data["image/png"] = "aaa=/tmp/45%|"
    assert faults(notebook) == []
    notebook.cells[0].outputs[0].data["application/vnd.plotly.v1+json"] = {"layout": {"title": "/tmp/runs"}}
    assert len(faults(notebook)) == 1


def test_what_was_not_run_in_order_is_a_fault():
    cell = shown("1").cells[0]
    later = {**cell, "execution_count": 3}
    assert "numbers [1, 3]" in faults(new_notebook(cells=[cell, NotebookNode(later)]))[0]
    assert faults(new_notebook(cells=[new_code_cell("1")])) == [
        "not run from top to bottom: its cells have the numbers [None]",
        "committed without outputs",
    ]


def test_metadata_tell_nothing_of_the_machine():
    notebook = shown("1", execution={"iopub.status.busy": "2020-01-01"})
    assert "when it was run" in faults(notebook)[0]
    notebook = shown("1")
    notebook.metadata["kernelspec"] = {"argv": ["/opt/python/bin/python"]}
    assert faults(notebook) == ["its metadata hold an absolute path"]


@pytest.fixture
def saved(tmp_path: Path):
    """Writes a notebook with this code, and returns where."""

    def save(*code: str) -> Path:
        path = tmp_path / "some.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in code]), path)
        return path

    return save


def test_a_notebook_is_run_by_this_interpreter_in_its_own_folder(saved):
    path = saved("import os, sys", "(sys.executable, os.getcwd())")
    fresh = execute(path)
    where = fresh.cells[1].outputs[0].data["text/plain"]
    assert repr(sys.executable) in where
    assert repr(os.fspath(path.parent)) in where
    assert [cell.execution_count for cell in fresh.cells] == [1, 2]
    assert all("execution" not in cell.metadata for cell in fresh.cells)


def test_an_error_in_a_cell_is_raised(saved):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(saved("1", "1 / 0"))
