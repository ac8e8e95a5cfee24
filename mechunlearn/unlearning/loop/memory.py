"""Whether an error means that memory did not suffice."""

from __future__ import annotations

import torch

# What torch raises where it has no exception of its own for it: on the CPU, from cuBLAS, on Apple's devices.
MESSAGES = ("allocate memory", "ALLOC_FAILED", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether less at a time may help."""
    known = isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)
    return known or isinstance(error, torch.OutOfMemoryError)
