"""The one-file HTML report on what was forgotten, dissected, attacked and evaluated, and its verdict in words."""

from .attacked import attack_table
from .evaluated import across
from .report import report
from .words import Words

__all__ = ["Words", "across", "attack_table", "report"]
