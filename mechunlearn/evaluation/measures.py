"""What is measured: every measure by its name, with what it says, where it comes from, and how it is read off a pass.

A measure of your own is one more entry:

    MEASURES["perplexity"] = Measure("of an answer token", "1 = known, rises as it goes", "exp of −log p", "answer",
                                     lambda scores: (-scores.mean_logprob).exp())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ..errors import UserError
from .overlap import bleu, rouge_l
from .truth import closer_to_one, true_better

Pass = Literal["answer", "choice", "truth", "generation", "text_loss", "text_kl"]


class Measure(NamedTuple):
    """One measure.

    `what` it is, its `direction` in words, its `source`, and the pass over the data that it is `made_by` (all
    measures of one pass cost as much as one of them): "answer" gives `AnswerScores`, "choice" `ChoiceScores`, "truth"
    `TruthScores`, "generation" pairs of texts, what is said now and what was said before. `of` makes of it one value a
    question. A `share` is a mean of what is right or wrong, 1 or 0: its interval is one for shares, which knows that
    0 of 20 is not certainly none.
    """

    what: str
    direction: str
    source: str
    made_by: Pass
    of: Callable[[Any], Any] = lambda values: values
    share: bool = False

    @property
    def about(self) -> dict[str, Any]:
        """What it is, as plain values."""
        return {name: value for name, value in self._asdict().items() if name != "of"}


_KNOWN = "1 = known, 0 = not"
_TWINS = "1 = right and wrong alike (forgotten), 0 = far apart"
_BETTER = "1 = known, 0 = right no better than wrong"
_UNCHANGED = "1 = unchanged, 0 = nothing in common"
_TOFU, _OPEN = "arXiv 2401.06121", "open-unlearning"

MEASURES: dict[str, Measure] = {
    "recall": Measure("greedy decoding gives the answer", _KNOWN, "exact match", "answer", lambda s: s.correct,
                      share=True),
    "answer_probability": Measure("geometric mean of the answer tokens' probabilities", _KNOWN, _TOFU, "answer",
                                  lambda s: s.mean_logprob.double().exp()),
    "answer_logprob": Measure("log-probability of the whole answer, nats", "0 = known, −∞ = not", "", "answer",
                              lambda s: s.logprob),
    "rank": Measure("mean over answer tokens of the right token's rank", "1 = top, up to the vocabulary", "", "answer",
                    lambda s: s.rank),
    "exact_memorisation": Measure("share of answer tokens that are most probable", _KNOWN, _OPEN, "answer",
                                  lambda s: s.memorised),
    "extraction_strength": Measure("share of the answer that follows from the rest, 0 where nothing does", _KNOWN,
                                   "open-unlearning, floor corrected", "answer", lambda s: s.extracted),
    "choice_accuracy": Measure("multiple choice: the right option scores highest", "1 = known, chance = guessing",
                               "argmax, ties shared", "choice", lambda s: s.accuracy, share=True),
    "choice_probability": Measure("multiple choice: probability of the right option", "1 = known, chance = guessing",
                                  "softmax at T = 1", "choice", lambda s: s.probability),
    "truth_ratio_geometric": Measure("min(R, 1/R), R by the geometric mean", _TWINS, _OPEN, "truth",
                                     lambda s: closer_to_one(s.geometric)),
    "truth_ratio_arithmetic": Measure("min(R, 1/R), R by the arithmetic mean", _TWINS, _TOFU, "truth",
                                      lambda s: closer_to_one(s.arithmetic)),
    "true_better_geometric": Measure("max(0, 1 − R), R by the geometric mean", _BETTER, _OPEN, "truth",
                                     lambda s: true_better(s.geometric)),
    "true_better_arithmetic": Measure("max(0, 1 − R), R by the arithmetic mean", _BETTER, _TOFU, "truth",
                                      lambda s: true_better(s.arithmetic)),
    "rouge_l": Measure("ROUGE-L F of what is said, against before", _UNCHANGED, "rouge-score", "generation",
                       lambda said: [rouge_l(*pair) for pair in said]),
    "bleu": Measure("BLEU of what is said, against before", _UNCHANGED, "sacrebleu", "generation",
                    lambda said: [bleu(*pair) for pair in said]),
    "text_loss": Measure("general text: −log p per token, nats", "0 = foreseen, rises with damage", "", "text_loss"),
    "text_kl": Measure("general text: KL(before ‖ model) per token, nats", "0 = unchanged", "", "text_kl"),
}  # fmt: skip
TEXT = ("text_loss", "text_kl")


def chosen_measures(measures: Sequence[str] | None, *, before: bool, text: bool) -> list[str]:
    """The measures to take: those asked for, or by default all that what is given allows.

    Raises:
        UserError: an unknown name; none; one that needs `before` or `text`, where it is not given.
    """

    def lacks(name: str) -> list[str]:
        return [
            *(["`before`"] if not before and (name == "text_kl" or MEASURES[name].made_by == "generation") else []),
            *(["`text`"] if not text and name in TEXT else []),
        ]

    if measures is None:
        return [name for name in MEASURES if not lacks(name)]
    unknown = [name for name in measures if name not in MEASURES]
    if unknown or not measures:
        raise UserError(f"{unknown or 'nothing'} cannot be measured; measures are {', '.join(MEASURES)}")
    for name in measures:
        if lacks(name):
            raise UserError(f"the measure {name} needs {' and '.join(lacks(name))}")
    return list(dict.fromkeys(measures))
