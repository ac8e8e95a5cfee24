"""The one-file HTML report on what was forgotten, dissected, attacked and evaluated, and its verdict in words."""

from .headline import Words
from .report import report
from .sections.attacks import AttackWords, attack_table
from .sections.evaluation import across

__all__ = ["AttackWords", "Words", "across", "attack_table", "report"]
