"""Diagnostics: what the weights say, and which neurons and value vectors stand out."""

from .neurons import neuron_changes
from .plotting.weights import plot_changes
from .vocabulary import promoted
from .weights import change_spectra, weight_changes

__all__ = ["change_spectra", "neuron_changes", "plot_changes", "promoted", "weight_changes"]
