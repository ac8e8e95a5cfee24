"""Attacks: try a model again after unlearning, and the model that never knew beside it."""

from .directions import AblateDirection, Steer
from .interpolating import Interpolate
from .noising import Noise
from .prompting import Prompts
from .protocol import Attack, Attempt, Given, asked, asked_with_near
from .quantising import Quantise, below_bin
from .relearn import relearn
from .relearning import Relearn
from .result import Attacks
from .suite import ATTACKS, SUITES, attack, listed
from .summary import curve, recovered, steps_to_recover, summarise
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
    "asked",
    "asked_with_near",
    "attack",
    "below_bin",
    "curve",
    "listed",
    "matrices",
    "recovered",
    "relearn",
    "steps_to_recover",
    "summarise",
]
