"""A notebook as the tests see it: what must not be in it, its key figures, and a fresh execution."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[2] / "notebooks"
LARGEST = 1_500_000  # bytes
TAG = "key-figures"
TOLERANCE = 0.1  # of a figure that does not name its own
SECONDS = 3600  # for one cell: against hanging, not against a busy machine

# A bar is drawn over itself, or counts its iterations.
_PROGRESS = re.compile(r"\r(?!\n)|\x1b\[A|\d%\||\d(?:it/s|s/it)|[█▏▎▍▌▋▊▉━╸]")
_PATH = re.compile(
    r"""(?:^|[\s"'(=:,])(?:file://)?(/(?:home|root|work|tmp|usr|opt|mnt|var|srv|Users|private)/|[A-Z]:\\)"""
)

Figures = dict[str, tuple[float, float]]
"""Value and absolute tolerance of each key figure, by name."""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def faults(notebook: NotebookNode) -> list[str]:
    """What a notebook that was run from top to bottom must not show, in words."""
    return [*_left_out(notebook), *_debris(notebook), *_machine(notebook)]


def key_figures(notebook: NotebookNode) -> Figures:
    """The numbers that the notebook's tagged cell ends with.

    Raises:
        ValueError: not one such cell, or its result is no flat dict of numbers or (number, tolerance).
    """
    tagged = [cell for cell in _code(notebook) if TAG in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells have the tag {TAG}; there must be one")
    results = [output.data["text/plain"] for output in tagged[0].outputs if output.output_type == "execute_result"]
    if len(results) != 1:
        raise ValueError(f"the cell {TAG} does not end in an expression")
    try:
        found = ast.literal_eval(results[0])
    except (ValueError, SyntaxError):
        raise ValueError(f"the cell {TAG} does not show plain numbers (float(), round()): {results[0]:.80}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"the cell {TAG} must end in a dict with figures, not {results[0]:.80}")
    figures: Figures = {}
    for name, value in found.items():
        pair = value if isinstance(value, tuple) else (value, TOLERANCE)
        if len(pair) != 2 or not all(isinstance(number, int | float) for number in pair):
            raise ValueError(f"key figure {name!r} is neither a number nor (number, tolerance): {value!r:.80}")
        figures[str(name)] = (float(pair[0]), float(pair[1]))
    return figures


def differences(committed: Figures, found: Figures) -> list[str]:
    """The figures that are not what they were, in words; each may be off by its committed tolerance."""
    lines = [f"{name}: no longer there" for name in committed if name not in found]
    lines += [f"{name}: not in the committed notebook" for name in found if name not in committed]
    for name in committed.keys() & found.keys():
        (value, tolerance), (now, _) = committed[name], found[name]
        if not abs(now - value) <= tolerance:  # so that NaN is a difference
            lines.append(f"{name}: {now:g}, committed {value:g} (± {tolerance:g})")
    return sorted(lines)


def execute(path: Path) -> NotebookNode:
    """A copy, run from top to bottom in the notebook's folder by the interpreter that runs the tests.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    copy = read(path)
    for cell in _code(copy):
        cell.outputs, cell.execution_count = [], None
    own = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        copy, km=own, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(cleanup_kc=True)
    for cell in _code(copy):
        cell.outputs = [output for output in cell.outputs if not _of_the_drawing(output)]
    return copy


def _of_the_drawing(output: NotebookNode) -> bool:
    """What kaleido's driver of the browser grumbles about now and then is not the notebook's doing."""
    return output.output_type == "stream" and output.name == "stderr" and "choreographer" in output.text


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _left_out(notebook: NotebookNode) -> Iterator[str]:
    """Cells that were not run, or in another order; no outputs."""
    cells = _code(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"not run from top to bottom: its cells have the numbers {counts}"
    if not any(cell.outputs for cell in cells):
        yield "committed without outputs"


def _debris(notebook: NotebookNode) -> Iterator[str]:
    """What nobody wants to read: errors, warnings, progress bars."""
    for place, cell in enumerate(_code(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {place}: error {output.ename}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"cell {place}: writes to stderr: {output.text:.200}"
            if any(_PROGRESS.search(text) for text in _texts(output)):
                yield f"cell {place}: shows a progress bar"


def _machine(notebook: NotebookNode) -> Iterator[str]:
    """Traces of the machine that ran it: absolute paths, times."""
    for place, cell in enumerate(_code(notebook), start=1):
        if "execution" in cell.metadata:
            yield f"cell {place}: its metadata tell when it was run"
        if any(_PATH.search(text) for output in cell.outputs for text in _texts(output, drawn=True)):
            yield f"cell {place}: its output shows an absolute path"
    metadata = [notebook.metadata, *(cell.metadata for cell in notebook.cells)]
    if any(_PATH.search(json.dumps(one)) for one in metadata):
        yield "its metadata hold an absolute path"


def _texts(output: NotebookNode, drawn: bool = False) -> Iterator[str]:
    """The texts of an output; those of figures, which are JSON, where `drawn`. Pictures have none."""
    if output.output_type == "stream":
        yield output.text
    data: Mapping[str, object] = output.get("data", {})
    for kind, value in data.items():
        if isinstance(value, str) and not kind.startswith("image/"):
            yield value
        elif drawn and not isinstance(value, str):
            yield json.dumps(value)
