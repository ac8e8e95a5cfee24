"""Which measure decides whether an answer is known: by the answer's length.

Exact recall asks for every token of an answer. Of an answer of one to four tokens that is the question; of a sentence
it is nearly never met, not even where the model gives the sentence a probability of .6 a token. There a graded measure
decides with it: the probability of an answer token (geometric mean over the answer), and of what is to be kept the
share of answer tokens that are the most probable one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LONG = 4  # tokens: answers of more, at the median, are long


def are_long(lengths: Iterable[int]) -> bool:
    """Whether answers of these lengths (tokens) are too long for exact recall to decide alone."""
    found = list(lengths)
    return bool(found) and float(np.median(found)) > LONG
