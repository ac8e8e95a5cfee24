"""Dissection: which site, in which layers, gives the knowledge back?"""

from .dissect import dissect
from .engine import Trace, embed, record, resume, unembed
from .result import Dissection
from .windows import all_layers, from_, given, single, sliding, up_to

__all__ = [
    "Dissection", "Trace", "all_layers", "dissect", "embed", "from_", "given", "record", "resume",
    "single", "sliding", "unembed", "up_to",
]  # fmt: skip
