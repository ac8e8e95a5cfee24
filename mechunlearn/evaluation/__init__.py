"""What a model knows and what it lost: answers, choices, memorisation, truth, disruption, and their intervals."""

from .answers import AnswerLogprob, AnswerScores, answer_logprob, recall, score_answers
from .choosing import ChoiceScores, choice_accuracy, choice_probability, score_choices
from .clusters import clusters_of, facts_of, resampled
from .disruption import PerText, TextScores, per_text_kl, per_text_loss, text_kl, text_loss, text_scores
from .evaluate import evaluate
from .generation import greedy_answers
from .graded import LONG, are_long
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
from .result import Evaluation
from .rows import per_question, per_text
from .tables import check_groups, paired, summarise_measures
from .truth import TruthScores, closer_to_one, log_truth_ratio, score_truth, true_better

__all__ = [
    "LONG",
    "MEASURES",
    "AnswerLogprob",
    "AnswerScores",
    "ChoiceScores",
    "Evaluation",
    "Measure",
    "PerText",
    "TextScores",
    "TruthScores",
    "answer_logprob",
    "are_long",
    "benchmark",
    "bleu",
    "bootstrap_interval",
    "check_groups",
    "choice_accuracy",
    "choice_probability",
    "chosen_measures",
    "closer_to_one",
    "clusters_of",
    "count_clusters",
    "difference_interval",
    "evaluate",
    "exact_memorisation",
    "extraction_strength",
    "facts_of",
    "greedy_answers",
    "log_truth_ratio",
    "mean_interval",
    "paired",
    "per_question",
    "per_text",
    "per_text_kl",
    "per_text_loss",
    "recall",
    "resampled",
    "rouge_l",
    "score_answers",
    "score_choices",
    "score_truth",
    "share_difference_interval",
    "share_interval",
    "summarise_measures",
    "text_kl",
    "text_loss",
    "text_scores",
    "token_rank",
    "true_better",
]
