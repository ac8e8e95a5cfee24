"""Making a model forget: one verb, many methods, one budget."""

from .catalogue import METHODS
from .configure import configure, make_budget, make_layered
from .loop.budget import Budget
from .method import Method
from .methods.breaking import Breaking
from .methods.cir import CIR
from .methods.circuit_breakers import CircuitBreakers
from .methods.dpo import DPO, RefusalDPO
from .methods.gradient_ascent import GradientAscent
from .methods.gradient_difference import GradientDifference
from .methods.idk import IDK
from .methods.layered import Layered
from .methods.npo import NPO
from .methods.rmu import RMU
from .methods.simnpo import SimNPO
from .methods.undial import UNDIAL
from .methods.wga import WGA
from .result import Unlearning
from .run import unlearn
from .settings import kept_row, settings_of
from .step import Step

__all__ = [
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
    "Method",
    "RefusalDPO",
    "SimNPO",
    "Step",
    "Unlearning",
    "configure",
    "kept_row",
    "make_budget",
    "make_layered",
    "settings_of",
    "unlearn",
]
