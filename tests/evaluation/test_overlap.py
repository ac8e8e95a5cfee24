"""ROUGE-L and BLEU: unchanged is 1, and the published defects are gone."""

import math

import pytest
from hypothesis import given, strategies as st

from mechunlearn.evaluation import bleu, rouge_l

WORDS = st.lists(st.sampled_from(["ash", "Basil", "the", "東京", "naïve", "café"]), max_size=7).map(" ".join)


@given(WORDS)
def test_unchanged_is_one_in_any_script(text):
    assert rouge_l(text, text) == bleu(text, text) == pytest.approx(1)


@given(WORDS, WORDS)
def test_rouge_l_is_the_longest_common_subsequence(text, reference):
    ours, theirs = text.lower().split(), reference.lower().split()
    table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    both = len(ours) + len(theirs)
    assert rouge_l(text, reference) == pytest.approx(2 * table[-1][-1] / both if both else 1)


def test_bleu_of_a_worked_example():
    found = bleu("the cat sat on a mat", "the cat sat on the mat")
    assert found == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_the_reference_is_what_was_said_before():
    short, long = "one two three four", "one two three four five six"
    assert bleu(short, long) == pytest.approx(math.exp(1 - 6 / 4))  # all right, and too short
    assert bleu(long, short) == pytest.approx((4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)  # too much, and not too short


def test_nothing_said():
    for alike in (rouge_l, bleu):
        assert alike("", "") == 1
        assert alike("", "word") == alike("word", "") == 0
        assert alike("entirely other", "words here") == pytest.approx(0, abs=0.05)
    assert rouge_l("...", "...") == 1 and rouge_l("...", "!") == 0
