"""The one-file HTML report on dissections and unlearning runs, and its verdict in words."""

from .peaks import key_table
from .report import report
from .words import Words

__all__ = ["Words", "key_table", "report"]
