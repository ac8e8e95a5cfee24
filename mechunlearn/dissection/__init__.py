"""Dissection: which site, in which layers, gives the knowledge back?"""

from .dissect import dissect
from .result import Dissection
from .windows import all_layers, from_, given, single, sliding, up_to

__all__ = ["Dissection", "all_layers", "dissect", "from_", "given", "single", "sliding", "up_to"]
