"""The picture shows what is in the frame."""

import pandas as pd
import pytest

from mechunlearn.unlearning import NPO, Budget, Layered, unlearn
from mechunlearn.unlearning.plot import plot

from .conftest import TEXT


def about(budget: dict | None = None, stopped: str = "all steps done") -> dict:
    return {"settings": {"method": "npo", "budget": budget, "prompts": "held_out"}, "stopped": stopped}


def table(**more) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stage": 1, "step": [0, 5, 5, 10], "forget_recall": [1.0, 0.1, 0.5, 0.4],
            "near_recall": [1.0, 0.2, 0.9, 0.8],
            "text_loss": [2.0, 3.0, 2.01, 2.02], "text_kl": [0.0, 4.0, 0.01, 0.02],
            "inside": [True, False, True, True], "scale": [1.0, 1.0, 0.5, 0.5],
        }
        | more
    )  # fmt: skip


def traces(figure) -> dict[str, tuple[list, list]]:
    return {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}


def lines(figure) -> list[tuple[float, float]]:
    """Of horizontal lines, the level."""
    return [shape.y0 for shape in figure.layout.shapes if shape.y0 == shape.y1]


def words(figure) -> set[str]:
    return {note.text for note in figure.layout.annotations}


def test_lines_join_what_was_kept_and_crosses_are_what_was_left():
    found = traces(plot(table(), about({"kl": 0.02, "near": 0.6})))
    assert found["forget"] == ([0, 5, 10], [1.0, 0.5, 0.4])
    assert found["near"] == ([0, 5, 10], [1.0, 0.9, 0.8])
    assert found["forget, outside the budget"] == ([5], [0.1])
    assert found["general text"] == ([0, 5, 10], [0.0, 0.01, 0.02])
    assert "outside the budget" in found


def test_limits_of_the_budget_are_lines():
    figure = plot(table(), about({"kl": 0.02, "near": 0.6, "far": None}))
    assert lines(figure) == [0.6, 0.02]
    assert {"budget", "least near recall", "KL to the start on general text, nats a token"} <= words(figure)
    assert lines(plot(table(), about())) == []


def test_a_limit_of_the_loss_shows_the_loss():
    figure = plot(table(), about({"loss": 0.01, "kl": None}))
    assert lines(figure) == pytest.approx([2.02])
    assert traces(figure)["general text"][1] == [2.0, 2.01, 2.02]


def test_what_lies_far_outside_stays_in_sight_with_its_value():
    figure = plot(table(), about({"kl": 0.02}))
    low, high = figure.layout.yaxis2.range
    (cross,) = (trace for trace in figure.data if trace.name == "general text, outside the budget")
    assert low < 0 < 0.02 < cross.y[0] < high < 0.05
    assert list(cross.customdata) == [4.0]


def test_without_text_there_is_one_panel():
    figure = plot(table().drop(columns=["text_kl", "text_loss"]), about())
    assert "yaxis2" not in figure.layout
    assert "general text" not in traces(figure)
    assert words(figure) == {"Recall, asked in held-out phrasings"}


def test_stages_are_marked():
    frame = pd.concat([table(), table(stage=2, step=[10, 15, 15, 20])])
    reason = "stage 1: all steps done; stage 2: fold 2 recall at or below 0"
    figure = plot(frame, about(stopped=reason))
    assert [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1] == [10, 10]
    assert "stage 2" in words(figure)
    assert figure.layout.title.subtitle.text == "2 stages; the last: fold 2 recall at or below 0"


def test_runs_can_be_drawn(knowing, facts):
    options = {"steps": 2, "learning_rate": 6e-3, "batch_size": 4, "evaluate_every": 1, "progress": False, "text": TEXT}
    for method, budget in ((NPO(), Budget(kl=0.01, halvings=1)), (Layered(method=NPO(), folds=4), None)):
        result = unlearn(knowing, method, facts.forget, facts.retain, budget=budget, **options)
        figure = result.plot()
        assert {"forget", "near", "far", "general text"} <= set(traces(figure))
        assert figure.to_html()


def test_of_long_answers_tokens_right_are_drawn_beside_recall() -> None:
    found = traces(plot(table(forget_token_recall=[1.0, 0.6, 0.8, 0.7]), about()))
    assert {"forget", "forget, tokens right", "near"} <= set(found)
