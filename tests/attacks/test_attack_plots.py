"""Pictures of attacks hold the figures of the tables, and nothing that a setting could slip in."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mechunlearn.attacks.plots import plot_attacks, plot_curve
from mechunlearn.attacks.summary import curve, summarise_attacks
from mechunlearn.errors import UserError

from .test_summary import random_frame, rows, strongest_frame


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("by", ["attack", "setting"])
def test_each_attack_has_its_marks(by):
    frame = strongest_frame()
    table, figure = summarise_attacks(frame, by=by)[::-1], plot_attacks(frame, by=by)
    found = traces(figure)
    assert list(found) == ["never knew, attacked", "after unlearning, attacked", "after unlearning, unattacked"]
    for name, value, low, high in (
        ("never knew, attacked", "never_knew", "never_knew_low", "never_knew_high"),
        ("after unlearning, attacked", "value", "low", "high"),
    ):
        trace = found[name]
        np.testing.assert_allclose(trace["x"], table[value])
        np.testing.assert_allclose(np.add(trace["x"], trace["error_x"]["array"]), table[high])
        np.testing.assert_allclose(np.subtract(trace["x"], trace["error_x"]["arrayminus"]), table[low])
    np.testing.assert_allclose(found["after unlearning, unattacked"]["x"], table["start"])
    names = found["after unlearning, attacked"]["y"]
    assert len(set(names)) == len(table)
    assert names[0] == ("any of these" if by == "attack" else "steer: layer 1")
    subtitle = figure.layout.title.subtitle.text
    assert ("strongest setting" in subtitle) == (by == "attack") and "strongest" in subtitle


def test_without_a_twin_there_are_no_marks_of_it():
    frame = strongest_frame()
    assert "never knew, attacked" not in traces(plot_attacks(frame[frame["model"] != "never-knew"]))


def test_a_line_for_each_setting_and_model():
    frame = random_frame(3)
    figure = plot_curve(frame, "probability")
    table = curve(frame, "probability")
    found = traces(figure)
    assert list(found) == [f"relearn: {name}" for name in ("slow", "slow, never knew", "fast", "fast, never knew")]
    for name, trace in found.items():
        setting, _, twin = name.removeprefix("relearn: ").partition(", ")
        own = table[(table["setting"] == setting) & (table["model"] == ("never-knew" if twin else "after"))]
        np.testing.assert_allclose(trace["y"], own["value"])
        assert list(trace["x"]) == [0, 1, 2] and trace["line"]["dash"] == ("dash" if twin else "solid")
    assert found["relearn: slow"]["line"]["color"] == found["relearn: slow, never knew"]["line"]["color"]
    assert found["relearn: slow"]["line"]["color"] != found["relearn: fast"]["line"]["color"]


def test_words_of_a_user_are_no_html():
    sly = "<a href='x'>{prompt}</a>"
    plain = rows("none", "", "", 0, "after", {"a": [0.0]})
    asked = [row for step in (0, 1) for row in rows("prompts", sly, "", step, "after", {"a": [1.0]})]
    frame = pd.DataFrame([*plain, *asked])
    for figure in (plot_attacks(frame, by="setting"), plot_curve(frame)):
        for trace in traces(figure).values():
            shown = [trace.name, *np.ravel(trace.customdata), *trace.y, trace.hovertemplate]
            assert not [text for text in map(str, shown) if "<a" in text]
    assert "&lt;a href" in str(list(traces(plot_curve(frame))))


def test_unknown_measures():
    for plot in (plot_attacks, plot_curve):
        with pytest.raises(UserError, match="no measure 'rouge'"):
            plot(random_frame(0), "rouge")


def test_it_is_said_what_intervals_are_over():
    frame = random_frame(3)
    of_two = frame.assign(subject=frame["fact"].map(dict(zip("abcd", "xxyy", strict=True))))
    for shown, over in ((frame, "facts"), (of_two, "2 subjects")):
        for figure in (plot_attacks(shown), plot_curve(shown)):
            assert figure.layout.title.subtitle.text.endswith(f"95 % intervals over {over}")
