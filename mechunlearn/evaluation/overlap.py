"""How alike two generations are: ROUGE-L and BLEU of what a model says against what it said before."""

from __future__ import annotations

import re
from functools import cache

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu


def rouge_l(text: str, reference: str) -> float:
    """The F-measure of the longest common subsequence of words; 1 = unchanged, 0 = no word in common.

    Words are runs of letters and digits of any script, in lower case. The tokenizer that comes with rouge-score
    drops all but a to z and 0 to 9, so that two equal texts in another script get 0. Where a text has no word at
    all, 1 if both are equal, else 0. Source: Lin (2004), by the rouge-score library, without stemming.
    """
    if not (_Words.tokenize(text) and _Words.tokenize(reference)):
        return float(text == reference)
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


def bleu(text: str, reference: str) -> float:
    """BLEU of one text; 1 = unchanged, near 0 = nothing in common.

    Not symmetric: `reference` is what was said before, and a shorter `text` pays the brevity penalty. The
    behaviour test of arXiv 2410.06606 builds on code that passes the two the other way round, which rewards
    answers for getting shorter. Orders longer than the text do not count, so that one equal word gives 1. Short
    answers get more than their words earn: a full stop counts as a word, and smoothing lifts what is left, so that
    "Foo." against "Bar." has 0.5; `rouge_l` gives 0. Where a text is empty, 1 if both are, else 0. Source:
    Papineni et al. (2002), by sacrebleu (exponential smoothing, its own tokens, 0 to 1 in place of 0 to 100).
    """
    if not (text.strip() and reference.strip()):
        return float(text.strip() == reference.strip())
    return min(1.0, float(sentence_bleu(text, [reference], use_effective_order=True).score) / 100)


class _Words:
    @staticmethod
    def tokenize(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=_Words)
