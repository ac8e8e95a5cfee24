"""What the page says about attacks and evaluations: the strongest attack, its anchor, and what was not tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from mechunlearn.errors import UserError
from mechunlearn.evaluation import Evaluation
from mechunlearn.reporting import attack_table, report
from mechunlearn.reporting.sections.attacks import AttackWords, by_setting

from . import synthetic
from .test_report import HOSTILE, Page

RELEARN, PROMPT, STEER = ("relearn", "everything, adamw 0.0003"), ("prompts", "as trained"), ("steer", "layer 3")


def text_of(page: Path) -> str:
    """All that is read, behind the list of contents."""
    text = " ".join(" ".join(Page(page.read_text(encoding="utf-8")).text).split())
    return text[text.index("The answer in words") :]


def words(recalls: dict[tuple[str, str], tuple[float, float]], **options: object) -> AttackWords:
    return AttackWords.of(synthetic.attack_frame(recalls, needing_before=("steer",), **options))  # pyright: ignore[reportArgumentType]


def test_the_strongest_attack_open_to_everyone_is_told_beside_the_twin() -> None:
    frame = synthetic.attack_frame(
        {RELEARN: (0.6, 0.1), PROMPT: (0.2, 0.3), STEER: (0.9, 0.1)}, needing_before=("steer",)
    )
    said = AttackWords.of(frame)
    row = by_setting(frame).set_index("attack").loc["relearn"]
    assert "relearn (everything, adamw 0.0003)" in said.headline
    assert f"60.0% [{row.low:.1%}, {row.high:.1%}] of 40 facts to forget, 5.0% when nobody attacks" in said.headline
    assert f"never-knew model answers 10.0% [{row.never_knew_low:.1%}, {row.never_knew_high:.1%}]" in said.headline
    assert f"+50.0 percentage points [{100 * row.excess_low:+.1f}, {100 * row.excess_high:+.1f}]" in said.headline
    assert "more comes back" in said.headline and "near facts it then answers 90.0%" in said.headline
    [warning] = said.warnings
    assert "steer (layer 3) brings recall to 90.0%" in warning and "need not have" in warning


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [((0.6, 0.1), "more comes back"), ((0.1, 0.6), "less comes back"), ((0.3, 0.3), "cannot be told apart")],
)
def test_the_verdict_follows_the_interval_of_the_excess(pair: tuple[float, float], verdict: str) -> None:
    assert verdict in words({RELEARN: pair}).headline


def long(recalls: dict[tuple[str, str], tuple[float, float]], probability: tuple[float, float], tokens: int = 30):
    """Answers of so many tokens, to which the attacked models give these probabilities."""
    frame = synthetic.attack_frame(recalls)
    frame["tokens"] = tokens
    last = (frame["attack"] == "relearn") & (frame["step"] == frame["step"].max())
    frame["probability"] = 0.003
    for model, value in zip(("after", "never-knew"), probability, strict=True):
        frame.loc[last & (frame["model"] == model), "probability"] = value
    return frame


def test_long_answers_that_came_back_are_not_told_away_by_exact_recall() -> None:
    """Seen on real questions: probability .61 (never-knew .003), exact recall 4 %."""
    said = AttackWords.of(long({RELEARN: (0.05, 0.05)}, (0.61, 0.003)))
    assert (
        "an answer token of the 40 facts to forget has the probability 0.61 [0.61, 0.61], 0.003 when" in said.headline
    )
    assert "exact recall of whole answers is 5.0%" in said.headline
    assert "Two measures part: by exact recall the excess is +0.0 percentage points" in said.headline
    assert "the two cannot be told apart; by the probability of an answer token it is +0.61" in said.headline
    assert "(0.61 against 0.003), more comes back than the attack teaches a model that never knew" in said.headline
    assert any("answers are long (30 tokens at the median)" in warning for warning in said.warnings)


def test_long_answers_get_a_verdict_where_both_measures_agree() -> None:
    agreed = AttackWords.of(long({RELEARN: (0.6, 0.1)}, (0.61, 0.003))).headline
    assert "in recall: more comes back" in agreed and "Two measures part" not in agreed
    neither = AttackWords.of(long({RELEARN: (0.05, 0.05)}, (0.003, 0.003))).headline
    assert "in recall: the two cannot be told apart." in neither


def test_short_answers_are_decided_by_recall_and_the_probability_is_heard() -> None:
    said = AttackWords.of(long({RELEARN: (0.6, 0.1)}, (0.1, 0.1), tokens=2))
    assert "under it the model answers 60.0%" in said.headline and not any("long" in text for text in said.warnings)
    assert "Two measures part: by exact recall the excess is +50.0" in said.headline
    assert "more comes back than the attack teaches a model that never knew; by the probability" in said.headline


def test_without_a_twin_the_figure_has_no_anchor() -> None:
    said = words({RELEARN: (0.6, 0.0)}, twin=False)
    assert "never-knew model answers" not in said.headline and "nan" not in said.headline
    assert ["no anchor" in warning for warning in said.warnings] == [True]


def test_prompts_that_the_model_before_does_not_follow_are_named() -> None:
    [warning] = words({PROMPT: (0.1, 0.1)}, before=0.4).warnings
    assert "silence under them says nothing: as trained (40.0%)" in warning
    assert not words({PROMPT: (0.1, 0.1)}, before=0.5).warnings


def test_attacks_that_went_too_far_are_named() -> None:
    frame = synthetic.attack_frame({RELEARN: (0.6, 0.1), PROMPT: (0.2, 0.3)})
    ends = (frame["attack"] == "relearn") & (frame["model"] == "after") & (frame["step"] == frame["step"].max())
    frame.loc[ends, "broke"] = "mlp, folds 0: in epoch 7 the loss is nan"
    [warning] = AttackWords.of(frame).warnings
    assert (
        warning.startswith("Ended early")
        and "relearn on the model after, mlp, folds 0: in epoch 7 the loss is nan" in warning
    )
    assert warning.count("epoch 7") == 1


def test_where_every_attack_needs_the_model_before() -> None:
    said = words({STEER: (0.4, 0.1)})
    assert "all of which use the model before" in said.headline and "40.0%" in said.headline and not said.warnings


def test_the_terminal_has_the_numbers_and_what_was_left_out() -> None:
    frame = synthetic.attack_frame({RELEARN: (0.6, 0.1), ("prompts", "very " * 40): (0.2, 0.3)}, before=1.0)
    shown = attack_table(frame, {"interpolate": "the model before unlearning"})
    head, _, relearn, prompts = shown.splitlines()[:4]
    assert head.split()[:2] == ["attack", "setting"] and "0.60 [" in relearn and "+0.50 [" in relearn
    assert "…" in prompts and "1.00" in prompts and "-0.10 [" in prompts and len(prompts) < 170
    assert "Mind: Not tested: interpolate, which needs the model before unlearning." in shown


def test_attacks_alone(tmp_path: Path) -> None:
    frame = synthetic.attack_frame({RELEARN: (0.6, 0.1), PROMPT: (0.2, 0.3)}, before=0.1)
    page = report(synthetic.write_attacks(tmp_path / "tried", frame, {"noise": "something"}))
    text, parsed = text_of(page), Page(page.read_text(encoding="utf-8"))
    order = ["The answer in words", "Attacks: tried", "runs/npo/model, attacked (never-knew: organism:never-knew)",
             "the strongest is relearn", "silence under them", "Not tested: noise", "upper estimate",
             "What comes back under attack", "step by step", "Setting by setting",
             "prompts as trained", "frames: ['few-shot']"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    figures = [json.loads(script) for attributes, script in parsed.scripts if attributes.get("type")]
    assert len(figures) == 2
    assert {trace["name"] for trace in figures[0]["data"]} >= {"never knew, attacked", "after unlearning, attacked"}
    assert not re.search(r"\bnan\b", text)


def test_no_curve_where_no_attack_goes_in_steps(tmp_path: Path) -> None:
    page = report(synthetic.write_attacks(tmp_path, synthetic.attack_frame({PROMPT: (0.2, 0.3)})))
    assert page.read_text(encoding="utf-8").count("<figure>") == 1


def test_an_evaluation_alone(tmp_path: Path) -> None:
    folder = synthetic.write_evaluation(tmp_path / "asked")
    text = text_of(report(folder))
    head = text[text.index("measure forget") :]
    assert head.startswith("measure forget near text what it is")
    summary = Evaluation.load(folder).summary().set_index(["role", "measure"])
    low, high = summary.loc[("forget", "recall"), ["low", "high"]]
    assert f"recall 0.250 [{low:.3f}, {high:.3f}] 32 0.250 [{low:.3f}, {high:.3f}] 32 greedy decoding" in text
    assert "text loss 0.250 [0.250, 0.250] 8" in " ".join(text.split())
    assert "1 = known, 0 = not" in text and "0 = foreseen" in text
    assert (
        "runs/npo/model , compared with organism ; facts asked in held-out phrasings" in text
        and "Nothing was dissected" in text
    )


def test_all_kinds_of_one_run_stand_on_one_page(tmp_path: Path) -> None:
    run = synthetic.write_unlearning(tmp_path / "npo")
    synthetic.write_dissection(run / "dissection", table=synthetic.frame(5))
    synthetic.write_attacks(run / "attacks", synthetic.attack_frame({RELEARN: (0.6, 0.1)}))
    synthetic.write_evaluation(run / "evaluation")
    text = text_of(report(run))
    order = ["Dissection: dissection", "Unlearning: npo", "Attacks: attacks", "Evaluation: evaluation"]
    places = [text.index(part) for part in order]
    assert places == sorted(places) and "Nothing was dissected" not in text


def test_text_of_users_stays_text(tmp_path: Path) -> None:
    frame = synthetic.attack_frame({("relearn", words): (0.2, 0.1) for words in HOSTILE} | {PROMPT: (0.1, 0.2)})
    synthetic.write_attacks(tmp_path / "attacks", frame, {HOSTILE[0]: HOSTILE[2]})
    synthetic.write_evaluation(tmp_path / "evaluation", (HOSTILE[0], HOSTILE[2]), model=HOSTILE[1], before=HOSTILE[0])
    page = report(tmp_path)
    source, parsed = page.read_text(encoding="utf-8"), Page(page.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("script") == tags.count("figure") + 3 and "img" not in tags
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert not any(text in source for text in HOSTILE[:3])
    assert "{{ 7 * 7 }}" in "".join(parsed.text) and "(10,000 characters)" in "".join(parsed.text)


def test_unfinished_and_broken_runs(tmp_path: Path) -> None:
    done = synthetic.write_evaluation(tmp_path / "done")
    begun = synthetic.write_attacks(tmp_path / "begun", synthetic.attack_frame({PROMPT: (0.2, 0.3)}))
    (begun / "run.json").write_text('{"kind": "attacks", "settings": {}, "about": {}}')
    assert "begun (not finished)" in text_of(report(tmp_path))
    pd.DataFrame({"measure": ["recall"]}).to_parquet(done / "frame.parquet")
    with pytest.raises(UserError, match=r"frame\.parquet: no column question, fact, role"):
        report(tmp_path)
    frame = synthetic.attack_frame({PROMPT: (0.2, 0.3)})
    other = synthetic.write_attacks(tmp_path / "other", frame[frame["attack"] == "none"])
    with pytest.raises(UserError, match=r"frame\.parquet: has no rows"):
        report(other)
