"""A distance that recovery is measured by, and a measure of what a model knows: one entry each."""

from mechunlearn.dissection import METRICS, Metric
from mechunlearn.evaluation import MEASURES, Measure

# Half the sum of |p − q| over the vocabulary: 0 = the same predictions, 1 = nothing in common.
METRICS["total_variation"] = Metric(
    "total variation of the predictions",
    lambda pair: pair.mean((pair.p - pair.q).abs().sum(-1) / 2),
)
MEASURES["perplexity"] = Measure(
    "exp of the mean −log p of an answer token",
    "1 = certain of the answer, rises as it is forgotten",
    "",
    "answer",
    lambda scores: (-scores.mean_logprob.double()).exp(),
)
