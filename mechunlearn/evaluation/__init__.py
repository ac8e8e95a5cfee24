"""What a model knows and what it lost: recall, probability, disruption, intervals."""

from .answers import AnswerLogprob, AnswerScores, answer_logprob, recall, score_answers
from .behaviour import behaviour
from .disruption import PerText, TextScores, per_text_kl, per_text_loss, text_kl, text_loss, text_scores
from .generation import greedy_answers
from .intervals import bootstrap_interval

__all__ = [
    "AnswerLogprob",
    "AnswerScores",
    "PerText",
    "TextScores",
    "answer_logprob",
    "behaviour",
    "bootstrap_interval",
    "greedy_answers",
    "per_text_kl",
    "per_text_loss",
    "recall",
    "score_answers",
    "text_kl",
    "text_loss",
    "text_scores",
]
