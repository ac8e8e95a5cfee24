"""Dissection: which site, in which layers, gives the knowledge back?"""

from .change_plots import plot_changes
from .changes import change_spectra, weight_changes
from .dissect import dissect
from .engine import Trace, embed, record, resume, unembed
from .neurons import neuron_changes
from .result import Dissection
from .vocabulary import promoted
from .windows import all_layers, from_, given, single, sliding, up_to

__all__ = [
    "Dissection", "Trace", "all_layers", "change_spectra", "dissect", "embed", "from_", "given", "neuron_changes",
    "plot_changes", "promoted", "record", "resume", "single", "sliding", "unembed", "up_to", "weight_changes",
]  # fmt: skip
