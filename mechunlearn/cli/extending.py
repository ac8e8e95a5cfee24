"""A user's own methods, attacks and sites on the command line."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb

from ..errors import UserError


def use(file: Path) -> None:
    """Run a Python file that puts its own into `METHODS`, `ATTACKS`, `SUITES`, `ACTIVATIONS` or `PARAMETERS`.

    Raises:
        UserError: there is no such Python file, its name is that of a module already loaded, or it raises something
            (with the line; `--traceback` shows all).
    """
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"--use {file}: no such Python file")
    known = sys.modules.get(file.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == file.resolve():
            return
        raise UserError(f"--use {file}: a module {file.stem} exists already; give the file another name")
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look up their annotations there
    done = False
    try:
        spec.loader.exec_module(module)
        done = True
    except Exception as error:
        lines = [entry.lineno for entry in extract_tb(error.__traceback__) if entry.filename == str(file)]
        line = f", line {lines[-1]}" if lines else getattr(error, "lineno", "") and f", line {error.lineno}"  # type: ignore[attr-defined]
        raise UserError(f"--use {file}{line}: {type(error).__name__}: {error}") from error
    finally:
        if not done:
            del sys.modules[file.stem]
