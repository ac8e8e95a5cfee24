"""A user's own methods, attacks and sites on the command line."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from ..errors import UserError


def use(file: Path) -> None:
    """Run a Python file that puts its own into `METHODS`, `ATTACKS`, `SUITES`, `ACTIVATIONS` or `PARAMETERS`.

    What it raises is shown as it is: whoever writes such a file wants to see the line.

    Raises:
        UserError: there is no such Python file, or its name is that of a module already loaded.
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
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
