"""Models: open, save, copy and compare them, and know what they are made of."""

from .anatomy import Slot, slots
from .checkpoint import clone, fingerprint, hf, save, state
from .loading import BUILT_IN, Source, load
from .pair import Comparison, compare

__all__ = [
    "BUILT_IN", "Comparison", "Slot", "Source",
    "clone", "compare", "fingerprint", "hf", "load", "save", "slots", "state",
]  # fmt: skip
