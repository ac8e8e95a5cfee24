"""From plain numbers: no masks, no gather, no reductions over axes."""

import math
from collections.abc import Sequence

from torch import Tensor

from mechunlearn.facts import Tokens


def answer_tokens(tokens: Tokens, logits: Tensor, row: int) -> list[tuple[int, float]]:
    """Position that predicts and −log p, for every answer token of a row."""
    found = []
    for place in range(tokens.ids.shape[1]):
        if tokens.answers[row, place]:
            line = logits[row, place - 1].tolist()
            top = max(line)
            total = top + math.log(sum(math.exp(value - top) for value in line))
            found.append((place - 1, total - line[int(tokens.ids[row, place])]))
    return found


def distribution(line: Tensor) -> list[float]:
    values = line.tolist()
    found = [math.exp(value - max(values)) for value in values]
    return [value / sum(found) for value in found]


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > 0 else value - math.log1p(math.exp(value))


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def length(one: list[float]) -> float:
    return math.sqrt(dot(one, one))


def distance(one: list[float], other: list[float]) -> float:
    return length([a - b for a, b in zip(one, other, strict=True)])


def cosine(one: list[float], other: list[float]) -> float:
    return dot(one, other) / (length(one) * length(other))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
