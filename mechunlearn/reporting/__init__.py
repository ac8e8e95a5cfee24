"""The one-file HTML report on dissections and unlearning runs."""

from .report import report
from .words import Words

__all__ = ["Words", "report"]
