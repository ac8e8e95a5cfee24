"""Making a model forget: gradient difference, NPO and DPO."""

from .dpo import DPO
from .gradient_difference import GradientDifference
from .npo import NPO
from .run import METHODS, UnlearningRun, unlearn

__all__ = ["DPO", "METHODS", "NPO", "GradientDifference", "UnlearningRun", "unlearn"]
