"""Figures hold the summary's numbers, and nothing of a user's text becomes markup in them."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mechunlearn.dissection.plotting.axes import window_ticks
from mechunlearn.dissection.plotting.maps import plot_positions
from mechunlearn.dissection.plotting.recovery import plot_answered, plot_recovery, window_families
from mechunlearn.dissection.plotting.styles import site_words, style
from mechunlearn.dissection.summary import summarise_recovery
from mechunlearn.errors import UserError

from ..reporting import synthetic

SUMMARY = summarise_recovery(synthetic.frame(8), resamples=50)


def lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.mode == "lines+markers"}


def test_lines_hold_the_summary() -> None:
    figure = plot_recovery(SUMMARY, "kl", "ratio_of_means", windows="single")
    rows = SUMMARY[
        (SUMMARY["metric"] == "kl") & (SUMMARY["site"] == "mlp_keys")
        & (SUMMARY["first_layer"] == SUMMARY["last_layer"]) & (SUMMARY["first_layer"] >= 0)
    ].sort_values("first_layer")  # fmt: skip
    trace = lines(figure)["MLP keys"]
    assert list(trace.x) == list(rows["centre"]) and list(trace.y) == list(rows["ratio_of_means"])
    band = next(t for t in figure.data if t.fill == "toself" and t.legendgroup == "mlp_keys")
    assert list(band.y) == [*rows["ratio_high"], *rows["ratio_low"][::-1]]
    subtitle = figure.layout.title.subtitle.text
    assert "before → after" in subtitle and "n = 6 facts" in subtitle and "2 undefined" in subtitle
    assert subtitle.endswith("95 % intervals over facts")
    assert "KL" in figure.layout.title.text


def test_sources_are_alike() -> None:
    frame = synthetic.frame(8)

    class Result:
        def summary(self) -> pd.DataFrame:
            return summarise_recovery(frame)

    one, two, three = (plot_recovery(source) for source in (frame, summarise_recovery(frame), Result()))
    assert one == two == three


def test_parameters_are_dashed_and_colours_are_fixed() -> None:
    found = lines(plot_recovery(SUMMARY))
    assert found["value vectors"].line.dash == "dash" and found["MLP coefficients"].line.dash == "solid"
    sites = {site_words(str(site)): str(site) for site in SUMMARY["site"].unique()}
    assert all(found[name].line.color == style(sites[name])[0] for name in found)
    assert style("transformer.h.*") == style("transformer.h.*")


def test_families_of_windows() -> None:
    families = window_families(SUMMARY)
    assert list(families) == ["windows of up to 5 layers", "single layers"]
    wide = {*zip(families["windows of up to 5 layers"]["first_layer"],
                 families["windows of up to 5 layers"]["last_layer"], strict=True)}  # fmt: skip
    assert wide == {(0, 2), (0, 3), (0, 4), (1, 5), (2, 5), (3, 5)}


def test_families_of_cumulative_and_single_layer_models() -> None:
    rows = SUMMARY[SUMMARY["site"] == "mlp_keys"].drop_duplicates(["first_layer", "last_layer"]).iloc[:4]
    up_to = rows.assign(first_layer=0, last_layer=[0, 1, 2, 3])
    assert [len(part) for part in window_families(up_to).values()] == [3]
    assert window_families(rows.iloc[:1].assign(first_layer=0, last_layer=0)) == {}
    assert len(plot_recovery(rows.iloc[:1].assign(first_layer=0, last_layer=0)).data) == 1


def test_sites_without_layers_and_all_layers_stand_aside() -> None:
    figure = plot_recovery(SUMMARY)
    axis = figure.layout.xaxis
    assert {"all layers", "embedding", "final norm", "unembedding"} <= set(axis.ticktext)
    aside = [trace for trace in figure.data if trace.mode == "markers"]
    assert aside and min(min(trace.x) for trace in aside) > 5


def test_the_axis_names_the_layers_of_each_window_and_marks_those_cut_off_at_an_edge() -> None:
    axis = plot_recovery(SUMMARY).layout.xaxis
    assert list(axis.ticktext[:6]) == ["0–2*", "0–3*", "0–4", "1–5", "2–5*", "3–5*"]
    assert list(axis.tickvals[:6]) == [1, 1.5, 2, 3, 3.5, 4]
    assert "fewer than 5" in axis.title.text and axis.tickangle  # plotly drops no label that stands aslant
    singles = plot_recovery(SUMMARY, windows="single").layout.xaxis
    assert list(singles.ticktext[:6]) == list("012345") and "*" not in singles.title.text


def test_windows_that_are_meant_to_grow_are_not_marked_and_many_are_thinned() -> None:
    grown = pd.DataFrame({"first_layer": 0, "last_layer": range(4)}).eval("centre = (first_layer + last_layer) / 2")
    assert window_ticks(grown) == ({0: "0", 0.5: "0–1", 1: "0–2", 1.5: "0–3"}, None)
    deep = pd.DataFrame({"first_layer": range(48), "last_layer": range(48), "centre": range(48)})
    assert list(window_ticks(deep)[0].values()) == [str(layer) for layer in range(0, 48, 3)]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ("mlp_coefficients+attention_output", "MLP coefficients with attention output"),
        ("attention_qk", "attention QK"),
        ("head_output[0,3]", "head output[0,3]"),
        ("blocks.{l}.hook_mlp_out", "blocks.{l}.hook_mlp_out"),
        (r"layers\.3\.mlp_x", r"layers\.3\.mlp_x"),
    ],
)
def test_sites_in_words_and_the_names_of_users_as_they_are(site: str, words: str) -> None:
    assert site_words(site) == words


def test_values_far_outside_are_marked_and_counted() -> None:
    figure = plot_recovery(synthetic.frame(8, wild=True))
    low, high = figure.layout.yaxis.range
    assert low == -0.5 and high <= 1.25
    assert any("1 value lies outside" in note.text and "-7" in note.text for note in figure.layout.annotations)
    edge = next(t for t in figure.data if t.mode == "markers" and "triangle-down" in np.atleast_1d(t.marker.symbol))
    assert low < edge.y[0] < 0


def test_the_ends_of_the_scale_follow_the_direction() -> None:
    frame = synthetic.frame(4, directions=("before->after", "after->before"))
    for direction, one in (("before->after", "1 = as before"), ("after->before", "1 = as after")):
        notes = [note.text for note in plot_recovery(frame, direction=direction).layout.annotations]
        assert one in notes


def test_undefined_everywhere_is_drawn_without_a_value() -> None:
    figure = plot_recovery(synthetic.frame(4, undefined=4))
    assert all(np.isnan(trace.y).all() for trace in lines(figure).values())


def test_maps() -> None:
    frame = synthetic.frame(4, positions=True)
    figure = plot_positions(frame)
    assert [note.text for note in figure.layout.annotations] == ["residual", "attention output", "MLP output"]
    first = figure.data[0]
    assert first.z.shape == (6, 9) and figure.layout.coloraxis.cmid == 0
    rows = frame[(frame["site"] == "residual") & (frame["metric"] == "mse") & frame["position"].eq(6).fillna(False)]
    expected = rows[rows["first_layer"] == 2]["recovery"].mean()
    assert first.z[2, 6] == pytest.approx(expected)
    assert figure.layout.xaxis3.ticktext[:3] == ("&lt;s&gt;_0", "The_1", "capital_2")


def test_maps_of_one_fact_and_of_facts_that_differ() -> None:
    frame = synthetic.frame(4, positions=True)
    frame.loc[(frame["fact"] == "1") & (frame["position"] == 3), "token"] = "at"
    assert plot_positions(frame).layout.xaxis3.ticktext[3] == "3"
    one = plot_positions(frame, fact="1")
    assert one.layout.xaxis3.ticktext[3] == "at_3" and "fact 1" in one.layout.title.subtitle.text


HOSTILE = '<a href="https://example.com">x</a><img src=x onerror=alert(1)>'


def test_hostile_names_and_tokens_are_text() -> None:
    frame = synthetic.frame(3, positions=True)
    frame["site"] = frame["site"].replace({"mlp_keys": HOSTILE, "residual": HOSTILE})
    frame.loc[frame["position"] == 0, "token"] = HOSTILE
    for figure in (plot_recovery(frame), plot_positions(frame)):
        texts = str(figure.to_dict())
        assert "<a href" not in texts and "<img" not in texts
    assert html.escape(HOSTILE, quote=False) in lines(plot_recovery(frame))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "accuracy"}, "mse, mse_centred"),
        ({"statistic": "median"}, "mean_of_ratios"),
        ({"direction": "sideways"}, "before->after"),
        ({"windows": "pairs"}, "write sliding:5"),
        (
            {"windows": [(1, 3)]},
            "no windows of given\\(1-3\\) here: there are windows of up to 5 layers, single layers",
        ),
    ],
)
def test_unknown_options_say_what_there_is(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plot_recovery(SUMMARY, **options)  # pyright: ignore[reportArgumentType]


def test_maps_need_positions_and_a_known_fact() -> None:
    with pytest.raises(UserError, match="dissect with positions"):
        plot_positions(synthetic.frame(3))
    with pytest.raises(UserError, match="'none'"):
        plot_positions(synthetic.frame(3, positions=True), fact="none")


def test_it_is_said_what_intervals_are_over() -> None:
    frame = synthetic.frame(8)
    frame["subject"] = (frame["fact"].astype(int) // 2).astype(str)
    figure = plot_recovery(frame)
    assert figure.layout.title.subtitle.text.endswith("95 % intervals over 3 subjects")  # the fourth is undefined


def test_answered_right_is_drawn_beside_both_models() -> None:
    table = synthetic.frame(12)
    answers, facts = synthetic.answers(table), synthetic.facts(12)
    figure = plot_answered(answers.assign(kind="activation"), facts)
    assert figure.layout.title.text == "Answered right by layer" and "n = 12 facts" in figure.layout.title.subtitle.text
    words = [note.text for note in figure.layout.annotations]
    assert "before: 100%" in words and "after: 8%" in words
    lines = [trace for trace in figure.data if trace.mode and "lines" in trace.mode and trace.hovertemplate]
    assert lines and all(
        "answered right" in trace.hovertemplate and "recovery" not in trace.hovertemplate for trace in lines
    )
    wide = answers[answers["last_layer"] - answers["first_layer"] > 0]  # single layers are another family's lines
    shares = wide.groupby(["site", "first_layer", "last_layer"], observed=True)["correct"].mean()
    drawn = {round(float(y), 6) for trace in figure.data if trace.y is not None for y in trace.y if y is not None}
    assert {round(float(share), 6) for share in shares} <= drawn
