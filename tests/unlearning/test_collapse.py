"""When the model breaks down: the run goes back, ends, and says why."""

from torch import Tensor

from mechunlearn.unlearning import GradientAscent, GradientDifference
from mechunlearn.unlearning.method import Method
from mechunlearn.unlearning.step import Step

from .conftest import TEXT
from .stages import run
from .test_budget import spied
from .test_resume import digest


class Sudden(GradientAscent):
    """Gives NaN from half of the run on."""

    def forget(self, step: Step) -> Tensor:
        return super().forget(step) * (float("nan") if step.progress >= 0.5 else 1.0)


def test_a_loss_that_is_nan_sends_the_run_back_and_is_named(knowing, facts, monkeypatch, caplog, tmp_path):
    accepted = spied(monkeypatch)
    options = {"steps": 10, "evaluate_every": 3, "learning_rate": 1e-4, "run": tmp_path}
    result = run(knowing, facts, Sudden(), **options)
    assert result.about["stopped"].startswith("collapsed: the loss is not finite at step 6 of 10")
    assert result.about["stopped"].endswith("; back to step 3")
    assert result.about["step"] == 3
    assert digest(result.model) == accepted[-1][1]
    assert result.frame["step"].tolist() == [0, 3]
    assert "gradient_ascent collapsed (the loss is not finite at step 6" in caplog.text
    assert digest(run(knowing, facts, Sudden(), **options).model) == digest(result.model)


def test_weights_that_overflow_are_a_collapse_too(knowing, facts):
    """The loss of the step is finite, and what it leads to is not."""
    for every in (1, 4):
        options = {"optimizer": "sgd", "learning_rate": 1e38, "clip": None, "evaluate_every": every}
        result = run(knowing, facts, GradientDifference(), text=TEXT, **options)
        assert result.about["stopped"].startswith("collapsed: ")
        assert result.about["stopped"].endswith("back to step 0")
        assert digest(result.model) == digest(knowing)


def test_retain_recall_that_is_gone_is_a_collapse(knowing, facts, monkeypatch):
    accepted = spied(monkeypatch)
    result = run(knowing, facts, GradientAscent(), steps=200, learning_rate=5e-3, schedule="constant")
    assert result.about["stopped"].startswith("collapsed: recall on ")
    step, weights = accepted[-1]
    assert result.about["step"] == step < result.frame["step"].iloc[-1]
    assert digest(result.model) == weights
    assert result.frame["inside"].tolist() == [True] * (len(result.frame) - 1) + [False]


def test_entropy_that_jumps_is_a_collapse(knowing, facts):
    """All predictions are drawn towards the uniform one, and recall on the retain facts stays as it is."""

    class Flat(Method):
        name = "flat"
        paper = "none"

        def forget(self, step: Step) -> Tensor:
            return step.see("text").scored.log_softmax(-1).mean(-1).neg().mean()

    options = {"steps": 200, "learning_rate": 5e-3, "text": TEXT, "retain_text": TEXT}
    result = run(knowing, facts, Flat(text_weight=0.0), **options)
    assert result.about["stopped"].startswith("collapsed: entropy of predictions on general text went from ")
    assert result.frame["near_recall"].iloc[-1] > 0.1
