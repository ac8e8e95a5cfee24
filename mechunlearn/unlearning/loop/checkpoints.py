"""Where an interrupted run goes on: all of its state in one file, written whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...errors import UserError
from ...runs import write_atomically

SHARE = 0.1  # of the time may go into saving


class Save:
    """One file, `state.safetensors`, with tensors and a note in JSON; nothing happens without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / "state.safetensors"
        self._next = 0.0

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last, or None.

        Raises:
            UserError: the file is damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads((file.metadata() or {})["note"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); delete it to start the run again") from error

    def write(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Write, unless the last time was so costly and so short ago that saving would take over the run."""
        if self.path is None or time.monotonic() < self._next:
            return
        began = time.monotonic()
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(self.path, save(whole, {"note": json.dumps(note)}))
        self._next = time.monotonic() + (time.monotonic() - began) * (1 / SHARE - 1)

    def remove(self) -> None:
        """The run is finished: its state is not needed any more. One that can only be read keeps it."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
