"""What a batch of facts gives: the distances of every patch, their denominators, and the noise of the computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..facts import Tokens
from .metrics import Reference, answer_logprob, distances, rounding
from .sweep import Sweep

SCORED_AT_ONCE = 4_000_000  # logits scored at a time: 32 MB in float64


@dataclass(frozen=True)
class Measured:
    """What one batch of facts gave, by metric: distances of every patch, the denominators, the noise."""

    distances: dict[str, Float[np.ndarray, "patch fact"]]
    baseline: dict[str, Float[np.ndarray, " fact"]]
    noise: dict[str, float]
    logprob: dict[str, Float[np.ndarray, " fact"]]  # "donor", "recipient": of the answer, nats
    said: dict[str, list[list[int]]]  # "donor", "recipient": most probable token at each predicting position
    right: dict[str, list[bool]]  # "donor", "recipient": is all of the answer said?
    patched: Int[np.ndarray, "patch predicting"]  # the same tokens under every patch, fact after fact


@torch.inference_mode()
def measure_batch(sweep: Sweep, tokens: Tokens, progress: Callable[[int], object] = lambda _: None) -> Measured:
    """Measure every patch of the sweep on these facts. `progress` is told how many patches were just finished."""
    recorded = sweep.record(tokens)
    reference, plain = recorded.reference, recorded.plain
    baseline = {metric: value[0] for metric, value in distances(reference, plain[None]).items()}
    # A patch that cannot change a bit is not run: its distance is the denominator itself.
    result = {metric: value.repeat(len(sweep.chosen), 1) for metric, value in baseline.items()}
    noise = rounding(reference, plain.dtype)
    patched = plain[reference.predicts].argmax(-1).repeat(len(sweep.chosen), 1)
    for numbers, logits, control in sweep.patched(recorded):
        _store(result, numbers, reference, logits)
        patched[numbers] = logits[:, reference.predicts].argmax(-1)
        if control is not None:
            _raise_noise(noise, plain[recorded.scored.facts == 0], control, reference)
        progress(len(numbers))

    said = {
        "donor": _by_fact(reference, reference.logits.argmax(-1)),
        "recipient": _by_fact(reference, plain.argmax(-1)),
    }
    answers = _by_fact(reference, reference.targets)
    return Measured(
        {metric: value.cpu().numpy() for metric, value in result.items()},
        {metric: value.cpu().numpy() for metric, value in baseline.items()},
        noise,
        {
            "donor": answer_logprob(reference, reference.logits).cpu().numpy(),
            "recipient": answer_logprob(reference, plain).cpu().numpy(),
        },
        said,
        {model: [tokens == answer for tokens, answer in zip(said[model], answers, strict=True)] for model in said},
        patched.cpu().numpy().astype(np.int32),
    )


def _store(
    result: dict[str, Tensor], numbers: list[int], reference: Reference, logits: Float[Tensor, "patch scored vocab"]
) -> None:
    step = max(1, SCORED_AT_ONCE // max(1, logits[0].numel()))
    for first in range(0, len(numbers), step):
        some = torch.tensor(numbers[first : first + step], device=logits.device)
        for metric, value in distances(reference, logits[first : first + step]).items():
            result[metric][some] = value


def _raise_noise(
    noise: dict[str, float], plain: Float[Tensor, "s vocab"], control: Float[Tensor, "s vocab"], reference: Reference
) -> None:
    """The control row was not patched: what it moved is noise."""
    first = reference.facts == 0
    alone = Reference(
        plain, reference.targets[first], reference.facts[first], reference.compared[first], reference.predicts[first], 1
    )
    for metric, value in distances(alone, control[None]).items():
        noise[metric] = max(noise[metric], float(value[0, 0]))


def _by_fact(reference: Reference, tokens: Int[Tensor, " scored"]) -> list[list[int]]:
    """The tokens at the predicting positions, fact by fact."""
    found: list[list[int]] = [[] for _ in range(reference.n_facts)]
    facts = reference.facts[reference.predicts].tolist()
    for fact, token in zip(facts, tokens[reference.predicts].tolist(), strict=True):
        found[fact].append(token)
    return found
