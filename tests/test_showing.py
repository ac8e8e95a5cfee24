"""Objects show themselves in a notebook: small, in no colour of their own, and never a user's text as markup."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pandas as pd
import pytest

from mechunlearn.attacks import Attacks
from mechunlearn.attacks.summary import summarise_attacks
from mechunlearn.dissection import Dissection
from mechunlearn.dissection.peaks import strongest
from mechunlearn.dissection.plotting.maps import plot_positions
from mechunlearn.dissection.plotting.recovery import plot_recovery
from mechunlearn.dissection.summary import summarise_recovery
from mechunlearn.evaluation import Evaluation
from mechunlearn.facts import Fact, Facts
from mechunlearn.models import compare
from mechunlearn.showing import ROWS, WIDTH, Table, plain, shown
from mechunlearn.unlearning import Unlearning

from .attacks.toys import toy
from .pairs import before, changed
from .reporting import synthetic

SCRIPT = "<script>alert('$x$')</script>"


def dissection(tmp_path, **options) -> Dissection:
    frame = synthetic.frame(6, **options)
    frame["site"] = frame["site"].replace({"mlp_keys": SCRIPT})
    empty = pd.DataFrame({"fact": pd.Series(dtype=object)})
    frames = {"frame": frame, "controls": synthetic.controls(failing=True), "facts": synthetic.facts(6)}
    rest = {name: empty for name in Dissection.__dataclass_fields__ if name not in (*frames, "about")}
    return Dissection(**frames, **rest, about=synthetic.about(6, before=SCRIPT))


def attacks(tmp_path) -> Attacks:
    recalls = {("relearn", SCRIPT): (0.5, 0.25), ("quantise", "8 bits"): (0.1, 0.0)}
    return Attacks(synthetic.attack_frame(recalls), {"settings": {}})


def unlearned(tmp_path) -> Unlearning:
    about = {"settings": {"method": SCRIPT, "prompts": "all"}, "stopped": "all steps done", "step": 60}
    synthetic.write_unlearning(tmp_path / "run")
    return Unlearning(toy(), pd.read_parquet(tmp_path / "run" / "frame.parquet"), about, ())


def evaluation(tmp_path) -> Evaluation:
    return Evaluation.load(synthetic.write_evaluation(tmp_path / "evaluation", (SCRIPT, "near"), model=SCRIPT))


def facts(tmp_path) -> Facts:
    return Facts([Fact(SCRIPT * 100, SCRIPT, role="forget") for _ in range(1000)], name=SCRIPT)


def comparison(tmp_path):
    found = compare(before("llama"), changed(before("llama"), lambda slot: slot.roles == ("value_vectors",)))
    return replace(found, frame=found.frame.replace({"role": {"norms": SCRIPT}}))


@pytest.mark.parametrize("make", [dissection, attacks, unlearned, evaluation, facts, comparison])
def test_objects_show_themselves_small_and_escaped(make, tmp_path) -> None:
    page = make(tmp_path)._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "<table" in page
    assert len(page) < 20_000
    assert not re.search(r"color|background|#[0-9a-f]{3,6}\b", page)


def test_plain_text_is_short_too(tmp_path) -> None:
    for make in (dissection, attacks, unlearned, evaluation, facts):
        assert len(repr(make(tmp_path))) < 300
    assert repr(unlearned(tmp_path)).endswith("60 steps; all steps done)")


def test_the_ends_of_a_run_are_those_of_the_kept_states(tmp_path) -> None:
    run = unlearned(tmp_path)
    frame = run.frame.copy()
    frame.loc[frame.index[-1], ["inside", "text_kl"]] = [False, 123.0]
    page = replace(run, frame=frame, about=run.about | {"step": 50})._repr_html_()  # where the run went back to
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells[:3] == ["before", "0", "1.000"] and cells[cells.index("after") + 1] == "50"
    assert "123" not in page


def test_facts_show_the_first_and_count_all(tmp_path) -> None:
    page = facts(tmp_path)._repr_html_()
    assert page.count("<tr") == ROWS + 1 and "992 more rows" in page
    assert max(len(cell) for cell in re.findall(r"<td>(.*?)</td>", page)) < 6 * WIDTH
    assert "<th>fold</th>" not in page
    assert "0 facts" in Facts([])._repr_html_()


def test_comparison_counts_by_role() -> None:
    page = comparison(None)._repr_html_()
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells[cells.index("value_vectors") : cells.index("value_vectors") + 3] == ["value_vectors", "4", "4"]


def test_cells() -> None:
    table = pd.DataFrame({"a": [0.12345, float("nan"), 1e-7], "b": [None, "x", 3]})
    cells = re.findall(r"<td>(.*?)</td>", shown("s", table))
    assert cells == ["0.123", "–", "–", "x", "1.0e-07", "3"]
    assert "more rows" not in shown("s", table) and "2 more rows" in shown("s", table, of=5)


def test_the_strongest_patch_leaves_out_all_layers_at_once_where_there_are_others() -> None:
    summary = summarise_recovery(synthetic.frame(6), resamples=20)
    found = strongest(summary, "kl").set_index("site")
    rows = summary[(summary["metric"] == "kl") & (summary["site"] == "mlp_keys")]
    parts = rows[rows["last_layer"] - rows["first_layer"] < 3]  # at most half of the layers
    assert found.loc["mlp_keys", "peak recovery"] == f"{parts['mean_of_ratios'].max():.2f}"
    assert list(found.index) == list(dict.fromkeys(summary["site"]))
    only = summary[(summary["first_layer"] == 0) & (summary["last_layer"] == 5)]
    assert set(strongest(only)["in"]) == {"layers 0–5"}


def test_maps_show_the_position() -> None:
    frame = synthetic.frame(4, positions=True)
    summary = summarise_recovery(frame[frame["position"].notna()], resamples=20)
    found = strongest(summary).set_index("site")
    rows = summary[(summary["metric"] == "mse") & (summary["site"] == "residual")]
    best = rows.loc[rows["mean_of_ratios"].idxmax()]
    assert found.loc["residual", "position"] == str(best["position"]) and "mlp_output" in found.index
    assert found.loc["residual", "recovery"] == f"{best['mean_of_ratios']:.2f}"


def test_what_is_undefined_is_called_so() -> None:
    for frame in (synthetic.frame(4, undefined=4), synthetic.frame(4, positions=True)):
        frame["defined"], frame["recovery"] = False, float("nan")
        for part in (frame, frame[frame["position"].notna()]):
            if len(part):
                text = plain(strongest(summarise_recovery(part, resamples=20)))
                assert "undefined" in text and "nan" not in text


def test_a_dissection_prints_as_a_table(tmp_path) -> None:
    lines = str(dissection(tmp_path)).splitlines()
    assert lines[0].startswith(f"Dissection of {SCRIPT} and") and lines[2].split()[:3] == ["site", "kind", "peak"]
    assert len(lines) == 4 + len(synthetic.SHAPES) + len(synthetic.NEITHER)


def hovers(figure, *parts: str) -> bool:
    """Does every point that speaks at all tell these things?"""
    told = [
        f"{trace.hovertemplate} {trace.customdata}"
        for trace in figure.data
        if trace.hoverinfo != "skip" and trace.x is not None and any(value is not None for value in trace.x)
    ]
    return bool(told) and all(part in text for text in told for part in parts)


def test_hovering_tells_site_window_value_and_interval(tmp_path) -> None:
    summary = summarise_recovery(synthetic.frame(6, wild=True), resamples=20)
    figure = plot_recovery(summary)
    assert hovers(figure, "layers %{customdata[1]}", "recovery %{customdata[2]} [%{customdata[3]}", "n = ")
    row = summary[(summary["site"] == "mlp_keys") & (summary["metric"] == "mse") & (summary["mean_of_ratios"] < -5)]
    edge = next(trace for trace in figure.data if "outside" in str(trace.hovertemplate))
    value, low, high = row[["mean_of_ratios", "mean_low", "mean_high"]].iloc[0]
    assert list(edge.customdata[0][:5]) == ["MLP keys", "1–5", f"{value:.3f}", f"{low:.3f}", f"{high:.3f}"]


def test_hovering_a_map_tells_the_fact_or_the_interval() -> None:
    frame = synthetic.frame(4, positions=True)
    frame = frame[frame["position"].notna()]
    assert hovers(plot_positions(frame), "layer %{y}, position %{x}", "n = 4 facts", "[0.", "capital_2")
    assert hovers(plot_positions(frame, fact="1"), "fact 1")
    first = plot_positions(frame, fact="1").data[0]
    assert "residual" in first.hovertemplate and first.customdata[0][0][1] == "<br>fact 1"


def test_hovering_attacks_and_runs_tells_the_step(tmp_path) -> None:
    assert hovers(attacks(tmp_path).plot_curve(), "step %{x}: %{y:.3f} [%{customdata[0]:.3f}")
    assert hovers(attacks(tmp_path).plot(), "%{y}: %{x:.3f}", "n = ")
    assert hovers(unlearned(tmp_path).plot(), "step %{x}: ")
    assert hovers(evaluation(tmp_path).plot(), "%{y}: %{x:.4g}", "n = ")


@pytest.mark.parametrize("make", [dissection, attacks, unlearned, evaluation])
def test_results_and_their_summaries_print_every_column_with_its_numbers(make, tmp_path) -> None:
    """A terminal of 80 columns cuts a plain frame down to dots."""
    found = make(tmp_path)
    with pd.option_context("display.width", 80, "display.max_columns", 4):
        sentence, table = str(found).split("\n\n")
        summary = str(found.summary())
    assert len(sentence) > 40 and re.search(r"\d\.\d\d", table)
    lines = summary.splitlines()
    assert re.search(r"\d\.\d\d\d\b", lines[2]) and "..." not in summary
    assert all(name in lines[0] for name in found.summary().columns)
    most = pd.get_option("display.max_rows")
    assert len(lines) == min(len(found.summary()), most) + 2 + (len(found.summary()) > most)


def test_a_summary_is_a_frame_like_any_other(tmp_path) -> None:
    summary = attacks(tmp_path).summary(by="attack")
    assert isinstance(summary, Table) and type(summary[["attack", "value"]]) is pd.DataFrame
    pd.testing.assert_frame_equal(pd.DataFrame(summary), summarise_attacks(attacks(tmp_path).frame, by="attack"))
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(summary)), summary)
    assert str(summary[:0]).startswith("Empty DataFrame")


def test_attacks_count_the_facts_that_were_to_be_forgotten(tmp_path) -> None:
    found = attacks(tmp_path)
    assert set(found.frame["role"]) == {"forget", "near"}
    assert repr(found).startswith("Attacks(40 facts;") and "What came back of 40 facts" in str(found)
