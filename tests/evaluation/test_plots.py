"""An evaluation's picture: every number of the summary is in it, once."""

import pandas as pd
import pytest

from mechunlearn.evaluation.plots import plot_measures

ROWS = [
    ("forget", "recall", 0.25, 0.125, 0.5, 32),
    ("near", "recall", 0.75, 0.5, 0.875, 16),
    ("forget", "rank", 40.0, 20.0, 80.0, 32),
    ("<b>text</b>", "text_loss", 2.5, 2.25, 3.0, 8),
]
SUMMARY = pd.DataFrame(ROWS, columns=["role", "measure", "value", "low", "high", "n"])


def test_every_mean_stands_in_the_row_of_its_measure_with_its_interval():
    figure = plot_measures(SUMMARY, "asked in all phrasings")
    found = {}
    for trace in figure.data:
        [x], [y], error, [more] = trace.x, trace.y, trace.error_x, trace.customdata
        found[trace.name, y] = (x, x - error.arrayminus[0], x + error.array[0], more[2])
        assert (more[0], more[1]) == (x - error.arrayminus[0], x + error.array[0])
    names = [role.replace("<b>", "&lt;b&gt;").replace("</b>", "&lt;/b&gt;") for role in SUMMARY["role"]]
    assert found == {(name, row[1]): row[2:] for name, row in zip(names, ROWS, strict=True)}
    assert figure.layout.title.subtitle.text.startswith("facts asked in all phrasings")


def test_a_measure_has_a_row_and_a_scale_of_its_own_and_a_group_one_colour_and_one_line_in_the_legend():
    figure = plot_measures(SUMMARY, "")
    places = {trace.y[0]: (trace.xaxis, trace.yaxis) for trace in figure.data}
    assert len(set(places.values())) == 3
    ranges = [figure.layout[place[0].replace("x", "xaxis")].range for place in places.values()]
    assert ranges == [pytest.approx((-0.03, 1.03)), None, None]  # shares alone have ends
    forget = [trace for trace in figure.data if trace.name == "forget"]
    assert [trace.showlegend for trace in forget] == [True, False]
    assert forget[0].marker.color == forget[1].marker.color
    assert len({trace.marker.color for trace in figure.data}) == 3


def test_groups_of_two_fields_have_one_name():
    summary = SUMMARY.assign(fold=["1", "2", "1", None])[["role", "fold", *SUMMARY.columns[1:]]]
    assert {trace.name for trace in plot_measures(summary, "").data} == {
        "forget 1", "near 2", "&lt;b&gt;text&lt;/b&gt;",
    }  # fmt: skip
