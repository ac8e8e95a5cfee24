"""What a model knows and what it lost: answers, choices, memorisation, truth, disruption, and their intervals."""

from .answers import AnswerLogprob, AnswerScores, answer_logprob, recall, score_answers
from .clusters import clusters_of, facts_of, resampled
from .choosing import ChoiceScores, choice_accuracy, choice_probability, score_choices
from .disruption import PerText, TextScores, per_text_kl, per_text_loss, text_kl, text_loss, text_scores
from .evaluate import evaluate, per_fact, per_text
from .generation import greedy_answers
from .harness import benchmark
from .intervals import (
    bootstrap_interval,
    count_clusters,
    difference_interval,
    mean_interval,
    share_difference_interval,
    share_interval,
)
from .measures import MEASURES, Measure, chosen_measures
from .memorisation import exact_memorisation, extraction_strength
from .overlap import bleu, rouge_l
from .ranks import token_rank
from .tables import paired, summarise_measures
from .truth import TruthScores, closer_to_one, log_truth_ratio, score_truth, true_better

__all__ = [
    "share_interval",
    "share_difference_interval",
    "resampled",
    "mean_interval",
    "facts_of",
    "difference_interval",
    "count_clusters",
    "clusters_of",
    "MEASURES",
    "AnswerLogprob",
    "AnswerScores",
    "ChoiceScores",
    "Measure",
    "PerText",
    "TextScores",
    "TruthScores",
    "answer_logprob",
    "benchmark",
    "bleu",
    "bootstrap_interval",
    "choice_accuracy",
    "choice_probability",
    "chosen_measures",
    "closer_to_one",
    "evaluate",
    "exact_memorisation",
    "extraction_strength",
    "greedy_answers",
    "log_truth_ratio",
    "paired",
    "per_fact",
    "per_text",
    "per_text_kl",
    "per_text_loss",
    "recall",
    "rouge_l",
    "score_answers",
    "score_choices",
    "score_truth",
    "summarise_measures",
    "text_kl",
    "text_loss",
    "text_scores",
    "token_rank",
    "true_better",
]
