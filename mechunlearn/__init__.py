"""mechunlearn: was the knowledge erased, or only hidden?

before = mu.load("organism")
facts = mu.Facts.builtin("organism")
after = mu.unlearn(before, mu.NPO(beta=0.1), forget=facts.forget, retain=facts.retain).model
mu.dissect(before, after, facts.forget).plot()
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attacks import (
        AblateDirection,
        Attacks,
        Interpolate,
        Noise,
        Prompts,
        Quantise,
        Relearn,
        Steer,
        attack,
        relearn,
    )
    from .dissection import (
        Dissection,
        change_spectra,
        dissect,
        neuron_changes,
        plot_changes,
        promoted,
        weight_changes,
    )
    from .errors import UserError
    from .evaluation import evaluate
    from .facts import Fact, Facts, Template, organism_text, tokenize
    from .models import clone, compare, load, save
    from .reporting import report
    from .unlearning import (
        CIR,
        DPO,
        IDK,
        METHODS,
        NPO,
        RMU,
        UNDIAL,
        WGA,
        Breaking,
        Budget,
        CircuitBreakers,
        GradientAscent,
        GradientDifference,
        Layered,
        RefusalDPO,
        SimNPO,
        unlearn,
    )

__version__ = version("mechunlearn")
__all__ = [
    "CIR",
    "DPO",
    "IDK",
    "METHODS",
    "NPO",
    "RMU",
    "UNDIAL",
    "WGA",
    "AblateDirection",
    "Attacks",
    "Breaking",
    "Budget",
    "CircuitBreakers",
    "Dissection",
    "Fact",
    "Facts",
    "GradientAscent",
    "GradientDifference",
    "Interpolate",
    "Layered",
    "Noise",
    "Prompts",
    "Quantise",
    "RefusalDPO",
    "Relearn",
    "SimNPO",
    "Steer",
    "Template",
    "UserError",
    "attack",
    "change_spectra",
    "clone",
    "compare",
    "dissect",
    "evaluate",
    "load",
    "neuron_changes",
    "organism_text",
    "plot_changes",
    "promoted",
    "relearn",
    "report",
    "save",
    "tokenize",
    "unlearn",
    "weight_changes",
]
_HOME = {
    **dict.fromkeys(
        (
            "AblateDirection",
            "Attacks",
            "Interpolate",
            "Noise",
            "Prompts",
            "Quantise",
            "Relearn",
            "Steer",
            "attack",
            "relearn",
        ),
        "attacks",
    ),
    **dict.fromkeys(
        (
            "Dissection",
            "change_spectra",
            "dissect",
            "neuron_changes",
            "plot_changes",
            "promoted",
            "weight_changes",
        ),
        "dissection",
    ),
    **dict.fromkeys(("UserError",), "errors"),
    **dict.fromkeys(("evaluate",), "evaluation"),
    **dict.fromkeys(("Fact", "Facts", "Template", "organism_text", "tokenize"), "facts"),
    **dict.fromkeys(("clone", "compare", "load", "save"), "models"),
    **dict.fromkeys(("report",), "reporting"),
    **dict.fromkeys(
        (
            "CIR",
            "DPO",
            "IDK",
            "METHODS",
            "NPO",
            "RMU",
            "UNDIAL",
            "WGA",
            "Breaking",
            "Budget",
            "CircuitBreakers",
            "GradientAscent",
            "GradientDifference",
            "Layered",
            "RefusalDPO",
            "SimNPO",
            "unlearn",
        ),
        "unlearning",
    ),
}


def __getattr__(name: str) -> object:
    """Import a room when its name is first used: `mechunlearn --help` need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
