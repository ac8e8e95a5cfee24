"""Dissection: which site, in which layers, gives the knowledge back?"""

from .dissect import dissect
from .metrics import METRICS, PAPER_METRIC, Metric
from .result import Dissection
from .windows import all_layers, from_, given, single, sliding, up_to

__all__ = [
    "METRICS", "PAPER_METRIC", "Dissection", "Metric",
    "all_layers", "dissect", "from_", "given", "single", "sliding", "up_to",
]  # fmt: skip
