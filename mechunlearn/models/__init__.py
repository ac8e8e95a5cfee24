"""Models: open, save, copy and compare them, and know what they are made of."""

from .anatomy import Slot, slots
from .checkpoint import clone, hf, save, state
from .identity import fingerprint
from .loading import Source, called, load, load_to_ask
from .pair import Comparison, compare, matched

__all__ = [
    "Comparison", "Slot", "Source",
    "called", "clone", "compare", "fingerprint", "hf", "load", "load_to_ask", "matched", "save", "slots", "state",
]  # fmt: skip
