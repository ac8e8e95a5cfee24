"""Options that make no sense are refused, and the others arrive at the training loop."""

import pytest

from mechunlearn.errors import UserError
from mechunlearn.training import Settings
from mechunlearn.unlearning import CIR, NPO
from mechunlearn.unlearning.options import Options


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be (above 0|a number)"),
        ({"learning_rate": float("nan")}, "learning_rate must be (above 0|a number)"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"schedule": "stairs"}, "unknown schedule 'stairs'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"clip": 0.0}, "clip .* must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2, "accumulation": 3}, "batch_size=2 rows cannot be split into accumulation=3 parts"),
        ({"accumulation": 0}, "accumulation must be at least 1"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"stop": 1.5}, "stop is a recall between 0 and 1, or 'chance', not 1.5"),
        ({"stop": "never"}, "stop is a recall between 0 and 1, or 'chance', not 'never'"),
    ],
)
def test_values_that_make_no_sense(changed, message):
    with pytest.raises(UserError, match=message):
        Options(**changed)


def test_settings_of_the_training_loop():
    options = Options(
        steps=7, learning_rate=1e-3, optimizer="sgd", schedule="cosine", warmup=2, weight_decay=0.1, clip=None,
        batch_size=4, accumulation=2, precision="bf16", seed=5,
    )  # fmt: skip
    assert options.settings() == Settings(
        7, 1e-3, "sgd", weight_decay=0.1, warmup=2, schedule="cosine", clip=None, accumulation=2, seed=5,
        precision="bf16",
    )  # fmt: skip
    assert Options().settings().learning_rate == 4e-4


def test_a_learning_rate_for_a_method_that_sets_its_own_steps(knowing):
    with pytest.raises(UserError, match="cir sets the length of its steps itself"):
        Options(learning_rate=1e-3).check(CIR(), knowing)
    Options().check(CIR(), knowing)
    Options(learning_rate=1e-3).check(NPO(), knowing)
