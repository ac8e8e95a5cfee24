"""The first lines of a page: a line a model, whatever lies where, and no more than the runs together show."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mechunlearn.reporting.answer import ALONE, VERDICTS, Answer
from mechunlearn.reporting.content import Content

from . import synthetic

RELEARN = ("relearn", "everything, adamw 0.0003")
NPO, CIR = "aa" * 16, "bb" * 16


def dissection(folder: Path, weights: str, **changes: object) -> Path:
    settings = {"sites": ["value_vectors"], "after": {"weights": weights}}
    return synthetic.write_dissection(folder, settings=settings, **changes)


def attacked(folder: Path, weights: str, recalls: tuple[float, float], *, twin: bool = True) -> Path:
    return synthetic.write_attacks(folder, synthetic.attack_frame({RELEARN: recalls}, twin=twin), weights=weights)


def only(folder: Path) -> Answer:
    (found,) = Content.of(folder).answers
    return found


def test_runs_about_the_same_weights_are_one_line_wherever_they_lie(tmp_path: Path) -> None:
    synthetic.write_unlearning(tmp_path / "b_npo", weights=NPO)
    synthetic.write_unlearning(tmp_path / "cir", weights=CIR, name="CIR, gently")
    dissection(tmp_path / "elsewhere", NPO)
    attacked(tmp_path / "b_npo" / "attacks", NPO, (0.6, 0.1))
    npo, cir = Content.of(tmp_path).answers
    assert (npo.name, cir.name) == ("b_npo", "CIR, gently")
    assert npo.forgotten == "answered right 100.0% → 1.8%"
    assert npo.cost == "near facts 100.0% → 90.2%; far facts 100.0% → 98.0%; general text: KL 0.0491 nats a token"
    assert (
        npo.attacked.startswith("answered right up to 60.0% [") and "never knew, by the same: 10.0% [" in npo.attacked
    )
    assert "MLP coefficients with attention output" in npo.patched and npo.so == VERDICTS["more"]
    assert (cir.attacked, cir.patched, cir.so) == ("no attack was run", "not dissected", ALONE["looked at"])
    table = Content.of(tmp_path).table
    assert list(table["model"]) == ["b_npo", "CIR, gently"] and table["so"].nunique() == 2


def test_two_runs_that_ended_with_the_same_weights_are_two_lines(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthetic.write_unlearning(tmp_path / name, weights=NPO)
    dissection(tmp_path / "dissection", NPO)
    one, two = Content.of(tmp_path).answers
    assert (one.name, two.name) == ("one", "two") and one.patched == two.patched != "not dissected"


def test_other_weights_are_another_model_even_below_the_same_folder(tmp_path: Path) -> None:
    synthetic.write_unlearning(tmp_path, weights=NPO)
    dissection(tmp_path / "dissection", CIR)
    assert [answer.patched == "not dissected" for answer in Content.of(tmp_path).answers] == [True, False]


@pytest.mark.parametrize(
    ("recalls", "so"), [((0.6, 0.1), "more"), ((0.2, 0.2), "same"), ((0.0, 0.6), "less")], ids=["more", "same", "less"]
)
def test_what_follows_from_an_attack_beside_the_twin(tmp_path: Path, recalls: tuple[float, float], so: str) -> None:
    attacked(tmp_path, NPO, recalls)
    answer = only(tmp_path)
    assert answer.name == "runs/npo/model" and answer.so == VERDICTS[so]
    assert answer.forgotten == "answered right 100.0% → 5.0%" and answer.cost == "not measured"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")], ids=["weak first", "strong first"])
def test_of_several_runs_of_attacks_the_one_that_brings_back_most_is_told(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    attacked(tmp_path / order[0], NPO, (0.1, 0.1))
    attacked(tmp_path / order[1], NPO, (0.6, 0.1))
    answer = only(tmp_path)
    assert answer.so == VERDICTS["more"] and "up to 60.0%" in answer.attacked


def test_a_map_does_not_hide_what_windows_show(tmp_path: Path) -> None:
    whole = synthetic.frame(positions=True)
    dissection(tmp_path / "a", NPO, table=whole[whole["position"].notna()])
    dissection(tmp_path / "b", NPO)
    assert "MLP coefficients with attention output" in only(tmp_path).patched


def test_an_attack_without_a_twin_tells_nothing_of_what_was_left(tmp_path: Path) -> None:
    attacked(tmp_path, NPO, (0.6, 0.1), twin=False)
    answer = only(tmp_path)
    assert answer.so == ALONE["no anchor"] and "no model that never knew" in answer.attacked


def test_a_dissection_alone_says_that_it_cannot_tell(tmp_path: Path) -> None:
    dissection(tmp_path, NPO)
    assert only(tmp_path).so == ALONE["dissected"]


@pytest.mark.parametrize(("shares", "so"), [((1.0, 0.9), "kept"), ((0.0, 0.0), "unknown")], ids=["kept", "unknown"])
def test_where_too_little_was_forgotten_or_known_nothing_is_judged(tmp_path: Path, shares, so: str) -> None:
    dissection(tmp_path, NPO)
    facts = pd.read_parquet(tmp_path / "facts.parquet")
    for which, share in zip(("before", "after"), shares, strict=True):
        facts[f"{which}_correct"] = [place < share * len(facts) for place in range(len(facts))]
        facts[f"{which}_probability"] = share
    facts.to_parquet(tmp_path / "facts.parquet")
    assert only(tmp_path).so == ALONE[so]


def test_models_that_share_too_little_are_not_judged_by_patches(tmp_path: Path) -> None:
    comparison = {"tensors": 57, "differ": 30, "relative_change": {"attention_qk": {"mean": 1.41, "max": 1.5}}}
    dissection(tmp_path, NPO, comparison=comparison)
    content = Content.of(tmp_path)
    headline = content.dissections[0].words.headline
    assert headline.startswith("The two models share too little") and "attention QK by 141%" in headline
    assert content.answers[0].patched == "nothing that could be judged: the models share too little"
    moved = comparison | {"relative_change": {"attention_qk": {"mean": 0.2, "max": 0.9}}}
    dissection(tmp_path, NPO, comparison=moved)
    assert Content.of(tmp_path).dissections[0].words.headline.startswith("The answer can be put back")


def test_damage_by_most_of_the_model_is_none(tmp_path: Path) -> None:
    table = synthetic.frame(directions=("after->before",))
    dissection(tmp_path, NPO, table=table[table["last_layer"] - table["first_layer"] >= 3])
    headline = Content.of(tmp_path).dissections[0].words.headline
    assert headline.startswith("Only windows of more than half of the layers were patched") and "damage" not in headline


def test_windows_of_more_than_half_the_layers_make_no_headline(tmp_path: Path) -> None:
    table = synthetic.frame()
    dissection(tmp_path, NPO, table=table[table["last_layer"] - table["first_layer"] >= 3])
    content = Content.of(tmp_path)
    headline = content.dissections[0].words.headline
    assert headline.startswith("Only windows of more than half of the layers were patched")
    assert "restoring" not in headline.lower()  # nor of parameters
    assert content.answers[0].patched == "nothing that could be judged: every patch replaced most of the model"
