"""Making a model forget: one verb, many methods, one budget."""

from .budget import Budget
from .catalogue import METHODS
from .method import Method
from .methods.dpo import DPO, RefusalDPO
from .methods.gradient_ascent import GradientAscent
from .methods.gradient_difference import GradientDifference
from .methods.layered import Layered
from .methods.npo import NPO
from .run import UnlearningRun, unlearn

__all__ = [
    "DPO",
    "METHODS",
    "NPO",
    "Budget",
    "GradientAscent",
    "GradientDifference",
    "Layered",
    "Method",
    "RefusalDPO",
    "UnlearningRun",
    "unlearn",
]
