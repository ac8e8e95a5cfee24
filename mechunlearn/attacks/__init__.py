"""Attacks: try a model again after unlearning, and the model that never knew beside it."""

from .attack import ATTACKS, SUITES, attack, listed
from .base import Attack, Attempt, Given
from .kinds.directions import AblateDirection, Steer
from .kinds.interpolate import Interpolate
from .kinds.noise import Noise
from .kinds.prompts import Prompts
from .kinds.quantise import Quantise, below_bin
from .kinds.relearn import Relearn
from .relearn import relearn
from .result import Attacks
from .summary import curve, recovered, steps_to_recover, summarise_attacks
from .weights import matrices

__all__ = [
    "ATTACKS",
    "SUITES",
    "AblateDirection",
    "Attack",
    "Attacks",
    "Attempt",
    "Given",
    "Interpolate",
    "Noise",
    "Prompts",
    "Quantise",
    "Relearn",
    "Steer",
    "attack",
    "below_bin",
    "curve",
    "listed",
    "matrices",
    "recovered",
    "relearn",
    "steps_to_recover",
    "summarise_attacks",
]
