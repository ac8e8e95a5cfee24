"""Planted logits, through the real distances and ranks: a distance closes over a hidden answer, and the reverse."""

from __future__ import annotations

import pandas as pd
import torch

from mechunlearn.dissection.metrics import Pair, Reference, distances, of_answer
from mechunlearn.reporting import Words

from .test_headline import GOOD, summary

FACTS, VOCABULARY, SHIFT = 40, 50, 30.0


def told(recipient: torch.Tensor, patched: torch.Tensor, donor: torch.Tensor) -> tuple[float, float, str]:
    """The recovery of the logits' squared error, the share answered right under the patch, and the headline."""
    rows = torch.arange(FACTS)
    everywhere = torch.ones(FACTS, dtype=torch.bool)
    reference = Reference(donor, torch.zeros_like(rows), rows, everywhere, everywhere, FACTS)
    both = torch.stack([recipient, patched])
    baseline, left = distances(reference, both)["mse"]
    value = float((1 - left / baseline).mean())
    under = torch.stack([donor, recipient, patched])
    own = of_answer(Pair(reference, under))
    right = under.argmax(-1) == 0
    ids = [str(row) for row in range(FACTS)]
    known = {"fact": ids, "question": ids, "subject": ids}
    known |= {f"{which}_correct": right[row].tolist() for row, which in enumerate(("before", "after"))}
    for row, which in enumerate(("before", "after")):
        known |= {
            f"{which}_probability": own["logprob"][row].exp().tolist(),
            f"{which}_rank": own["rank"][row].tolist(),
        }
    place = {"site": "mlp_coefficients", "direction": "before->after", "first_layer": 2, "last_layer": 3}
    answers = pd.DataFrame({"fact": ids, "question": ids, "correct": right[2].tolist(), **place}).assign(
        probability=own["logprob"][2].exp().tolist(), rank=own["rank"][2].tolist()
    )
    table = summary({"mlp_coefficients": {(2, 3): value, (0, 1): 0.0}}, n=FACTS)
    words = Words.of(table, controls=GOOD, facts=pd.DataFrame(known), answers=answers)
    return value, float(right[2].double().mean()), words.headline


def donor_logits() -> torch.Tensor:
    logits = torch.randn(FACTS, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[:, 0] = 8.0  # the answer, far above the others
    return logits


def test_a_common_shift_undone_over_a_hidden_answer() -> None:
    """The patch undoes the shift, which no softmax can see, and leaves the answer as low as it was."""
    donor = donor_logits()
    hidden = donor.clone()
    hidden[:, 0] = -8.0
    value, right, headline = told(hidden + SHIFT, hidden, donor)
    assert value >= 0.85 and right == 0
    assert headline.startswith("The distance closes and the answer stays away") and "answers 0% right" in headline
    assert f"the mean rank {VOCABULARY}" in headline and "can be put back" not in headline


def test_an_answer_that_is_back_under_a_shift_that_stays() -> None:
    donor = donor_logits()
    hidden = donor.clone()
    hidden[:, 0] = -8.0
    value, right, headline = told(hidden + SHIFT, donor + SHIFT, donor)
    assert value < 0.3 and right == 1
    assert headline.startswith("The answer can be put back while most of the distance stays")
    assert "answers 100% right" in headline
