"""A run says what it left, and what to try."""

import re
from typing import Any

import pytest
import torch

from mechunlearn.models import clone, hf, slots
from mechunlearn.reporting import report
from mechunlearn.unlearning import CIR, NPO, Breaking, Budget, GradientAscent, Unlearning, unlearn
from mechunlearn.unlearning.remaining import relative_change

from .conftest import TEXT

QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "evaluate_every": 2, "progress": False}
FAINT = [
    (NPO(), {"learning_rate": 1e-9}, "raise learning_rate, steps or forget_weight, or lower retain_weight"),
    (GradientAscent(), {"learning_rate": 1e-9}, "raise learning_rate, steps or forget_weight$"),
    (CIR(step_norm=1e-7, retain_rate=0.0, activations=1, gradients=1), {}, r"raise step_norm \(a length"),
    # A retain term in the units of another model.
    (Breaking(retain_weight=1e6, retain="representation"), {"learning_rate": 1e-8}, "or lower retain_weight"),
]


@pytest.mark.parametrize(("method", "options", "mend"), FAINT, ids=lambda value: getattr(value, "name", ""))
def test_a_run_that_did_nothing_says_so(knowing, facts, caplog, method, options, mend):
    run = unlearn(knowing, method, facts.forget, facts.retain, text=TEXT, **QUICK | options)
    said = run.about["remaining"]
    assert said.startswith("nothing was forgotten: recall 100.0% (before 100.0%), probability of an answer token ")
    assert re.search(mend, said)
    assert said not in caplog.text  # whoever wants no progress reads the result
    unlearn(knowing, method, facts.forget, facts.retain, text=TEXT, **QUICK | options | {"progress": True})
    assert said in caplog.text
    assert "nothing was forgotten" in repr(run)
    assert said.split(";")[0] in run._repr_html_()


def test_a_run_that_forgot_has_nothing_to_say(knowing, facts):
    options: dict[str, Any] = QUICK | {"steps": 40, "learning_rate": 6e-3}
    run = unlearn(knowing, NPO(), facts.forget, facts.retain, **options)
    assert run.frame["forget_recall"].iloc[-1] < 0.5
    assert "remaining" not in run.about
    assert "answered" not in repr(run)


def test_facts_that_are_answered_still_are_counted_aloud(knowing, facts, caplog):
    """Some are forgotten, more than a fifth is not: that is no forgotten domain."""
    with caplog.at_level("WARNING"):
        for steps in range(2, 40):
            options = QUICK | {"steps": steps, "evaluate_every": steps, "learning_rate": 3e-3, "progress": True}
            run = unlearn(knowing, NPO(), facts.forget, facts.retain, **options)
            if (left := run.frame["forget_recall"].iloc[-1]) < 0.95:
                break
    assert 0.2 < left < 0.95
    said = run.about["remaining"]
    assert said.startswith(f"the forget facts are still answered: recall {left:.1%} (before 100.0%), probability")
    assert said.endswith("Try this: raise learning_rate, steps or forget_weight, or lower retain_weight")
    assert said in caplog.text
    assert "the forget facts are still answered" in repr(run)


def test_of_a_budget_that_sent_the_run_back_not_the_rate_is_raised(knowing, facts):
    """Every step is too long for this budget."""
    options: dict[str, Any] = QUICK | {"learning_rate": 6e-3, "text": TEXT, "budget": Budget(kl=1e-7, halvings=1)}
    run = unlearn(knowing, GradientAscent(), facts.forget, facts.retain, **options)
    assert run.about["stopped"].startswith("budget reached")
    assert run.about["step"] == 0
    assert run.about["remaining"].startswith("the forget facts are still answered: recall 100.0%")
    assert "Try this: a larger budget" in run.about["remaining"]


def test_where_nothing_was_known_nothing_is_said_to_be_answered_still(knowing, facts):
    blank = clone(knowing)
    with torch.no_grad():
        hf(blank).lm_head.weight.zero_()
    run = unlearn(blank, NPO(), facts.forget, facts.retain, learning_rate=1e-9, **QUICK)
    assert run.about["remaining"].startswith("there was nothing to forget: before, recall of the forget facts is 0.0%")
    assert "form in which the model was taught" in run.about["remaining"]


def test_it_is_kept_and_stands_on_the_page(knowing, facts, tmp_path):
    run = unlearn(knowing, NPO(), facts.forget, facts.retain, run=tmp_path, learning_rate=1e-9, **QUICK)
    assert Unlearning.load(tmp_path).about["remaining"] == run.about["remaining"]
    report(tmp_path)
    page = next(tmp_path.glob("*.html")).read_text()
    assert "Nothing was forgotten: recall 100.0% (before 100.0%)" in page


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_change_is_a_share_of_the_weights_length(knowing, share):
    moved = clone(knowing)
    with torch.no_grad():
        for slot in slots(moved):
            slot.tensor.mul_(1 + share)
    assert relative_change(knowing, moved) == pytest.approx(share)
