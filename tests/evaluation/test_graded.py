"""When exact recall decides alone, and when a graded measure decides with it."""

import pytest

from mechunlearn.evaluation import LONG, are_long


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([], False), ([1, 2, 3], False), ([LONG], False), ([LONG + 1], True), ([1, 1, 40], False), ([1, 40, 40], True)],
)
def test_answers_are_long_by_their_median(lengths, expected):
    assert are_long(lengths) is expected
