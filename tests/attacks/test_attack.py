"""The verb: what it runs, what it leaves out, and that an interrupted run ends like a whole one."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from mechunlearn.attacks import ATTACKS, SUITES, Attacks, Noise, Prompts, Quantise, Relearn, attack
from mechunlearn.attacks.attack import attack_settings, label, possible_attacks
from mechunlearn.attacks.base import Attack, Attempt, Given
from mechunlearn.errors import NotFiniteError, UserError
from mechunlearn.evaluation import recall
from mechunlearn.facts import Fact, Facts, fact_of, tokenize
from mechunlearn.models import clone, fingerprint, hf, load
from mechunlearn.runs import read_run

from ..architectures import tiny
from .interrupted import SUITE, UNITS, go
from .toys import make_facts, tokenizer, toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def threads():
    """The killed processes compute on one thread, and so does what they are compared with."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def whole(threads) -> Attacks:
    return go(None)


def test_every_model_is_asked_as_it_is_and_attacked(whole):
    frame = whole.frame
    marks = set(zip(frame["attack"], frame["model"], strict=True))
    both = {(one.name, model) for one in SUITE for model in ("after", "never-knew")}
    assert marks == both | {("none", model) for model in ("after", "before", "never-knew")} | {("prompts", "before")}
    keys = ["attack", "setting", "part", "step", "model", "question"]
    assert not frame.duplicated(keys).any() and not frame.isna().any(axis=None)
    assert frame["fact"].isin([fact.id for fact in make_facts()]).all()
    assert {name: len(rows) for name, rows in frame[frame["attack"] == "none"].groupby("model")} == dict.fromkeys(
        ("after", "before", "never-knew"), 32
    )
    for name, model in (("after", toy()), ("never-knew", toy(seed=1)), ("before", toy(seed=2))):
        plain = frame[(frame["attack"] == "none") & (frame["model"] == name)]
        assert plain["correct"].tolist() == recall(model, tokenize(make_facts(2).questions(), tokenizer())).tolist()
        assert fingerprint(model) == whole.about["settings"]["models"][name]


def test_both_models_are_asked_the_same(whole):
    keys = ["attack", "setting", "part", "step", "question"]
    by_model = [whole.frame[whole.frame["model"] == model][keys] for model in ("after", "never-knew")]
    pd.testing.assert_frame_equal(*(rows.reset_index(drop=True) for rows in by_model))


@dataclass(frozen=True, kw_only=True)
class GiveAway(Attack):
    count: int = 1
    name = "give away"
    source = "a test"

    def attempts(self, model, given: Given):
        yield Attempt(model, given.questions(given.forget), given_tokens=self.count)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tokens_given_away_are_not_scored(count):
    facts = make_facts(2)
    found = attack(toy(), facts, suite=[GiveAway(count=count)], progress=False, batch_size=5).frame
    found = found[found["attack"] == "give away"].set_index("question")
    expected = {}
    for fact in facts.questions():
        head, row = (
            tokenizer()(text, add_special_tokens=False)["input_ids"]
            for text in (fact.prompt, f"{fact.prompt} {fact.answer}")
        )
        start = len(head) + count
        if start < len(row):
            with torch.no_grad():
                scores = hf(toy())(torch.tensor([row])).logits[0].double().log_softmax(-1)
            terms = [float(scores[place - 1, row[place]]) for place in range(start, len(row))]
            right = all(int(scores[place - 1].argmax()) == row[place] for place in range(start, len(row)))
            expected[fact.id] = (right, float(torch.tensor(terms).double().mean().exp()))
    assert list(found.index) == list(expected) and len(found) == {0: 32, 1: 16, 2: 8}[count]
    assert found["correct"].tolist() == [right for right, _ in expected.values()]
    torch.testing.assert_close(
        torch.tensor(found["probability"].to_numpy()), torch.tensor([p for _, p in expected.values()]).double(),
        atol=1e-6, rtol=1e-4,
    )  # fmt: skip


def test_more_tokens_given_away_than_any_answer_has():
    with pytest.raises(UserError, match="no answer is longer than the 3 tokens"):
        attack(toy(), make_facts(2), suite=[GiveAway(count=3)], progress=False)


def test_a_part_that_breaks_the_model_ends_alone_and_says_so(tmp_path, caplog):
    rough = Relearn(learning_rate=1e30, optimizer="sgd", epochs=2, batch_size=4)
    found = attack(toy(), make_facts(), suite=[rough], never_knew=toy(seed=1), progress=False, run=tmp_path).frame
    tried = found[found["attack"] == "relearn"]
    assert set(tried["step"]) == {0} and tried["part"].nunique() == 4  # no fold is spared because of another
    for model, rows in tried.groupby("model"):
        assert sorted(rows["fact"].unique()) == sorted(fact.id for fact in make_facts())
        for part, of_part in rows.groupby("part"):
            assert of_part["broke"].str.startswith(f"{rough.label}, {part}: in epoch 1 ").all()
        assert (
            f"relearn (optimizer=sgd, learning_rate=1e+30, epochs=2, batch_size=4) on {model}, folds 0+1+2"
            in caplog.text
        )
    assert (found.loc[found["attack"] == "none", "broke"] == "").all()
    pd.testing.assert_frame_equal(Attacks.load(tmp_path).frame, found)


@dataclass(frozen=True, kw_only=True)
class Shatter(Attack):
    parts: str = "right broken right"
    name = "shatter"
    source = "a test"

    def attempts(self, model, given: Given):
        for number, part in enumerate(self.parts.split()):
            copied = clone(model)
            if part == "broken":
                next(copied.parameters()).data.fill_(torch.nan)
            yield Attempt(copied, given.questions(given.forget.where(fold=number)), part=str(number))


def test_a_model_that_gives_no_numbers_ends_its_part_alone():
    found = attack(toy(), make_facts(), suite=[Shatter()], progress=False).frame
    tried = found[found["attack"] == "shatter"]
    assert tried.groupby("part")["fold"].unique().map(list).to_dict() == {"0": [0], "2": [2]}
    assert tried.loc[tried["part"] == "0", "broke"].str.startswith("1: at step 0 ").all()
    assert (tried.loc[tried["part"] == "2", "broke"] == "").all()
    twice = attack(toy(), make_facts(), suite=[Shatter(parts="right broken broken")], progress=False).frame
    [told] = twice.loc[twice["attack"] == "shatter", "broke"].unique()
    assert told.startswith("1: at step 0 ") and "; 2: at step 0 " in told
    with pytest.raises(NotFiniteError, match=r"attack shatter .* on after: at step 0"):
        attack(toy(), make_facts(), suite=[Shatter(parts="broken right")], progress=False)


def test_one_string_is_no_general_text():
    with pytest.raises(UserError, match="text must be a list of passages"):
        attack(toy(), make_facts(), suite="quick", text="the house of anna", progress=False)


def test_a_finished_run_is_opened_and_computes_nothing(tmp_path, monkeypatch, whole):
    first = go(tmp_path)
    pd.testing.assert_frame_equal(first.frame, whole.frame)
    monkeypatch.setattr(sys.modules["mechunlearn.attacks.attack"], "score_answers", None)
    again = go(tmp_path)
    pd.testing.assert_frame_equal(again.frame, first.frame)
    assert again.about == first.about == whole.about
    opened = Attacks.load(tmp_path)
    pd.testing.assert_frame_equal(opened.frame, first.frame)
    assert opened.about == first.about
    assert read_run(tmp_path)["kind"] == "attacks"
    for changed, key in (
        ({"seed": 1}, "seed"), ({"facts": make_facts(4)}, "facts"), ({"text": ["the house"]}, "text"),
        ({"before": toy()}, "models.before.weights"), ({"never_knew": None}, "models.never-knew"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"other settings \\({key} was"):
            go(tmp_path, **changed)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "moment"), [(1, "BEFORE"), (2, "AFTER"), (UNITS, "AFTER")])
def test_killed_at_any_moment_and_gone_on_with(number, moment, tmp_path, whole, monkeypatch):
    command = [sys.executable, "-m", "tests.attacks.interrupted", str(tmp_path / "run"), str(number), moment]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == -9, done.stderr
    kept = number if moment == "AFTER" else number - 1
    assert len(list((tmp_path / "run").glob("units/*.parquet"))) == kept
    with pytest.raises(UserError, match="not finished"):
        Attacks.load(tmp_path / "run")
    computed = []
    for one in (Relearn, Noise, Prompts):
        attempts = one.attempts
        monkeypatch.setattr(
            one, "attempts", lambda *given, run=attempts: computed.append(type(given[0])) or run(*given)
        )
    again = go(tmp_path / "run")
    assert len(computed) == UNITS - kept
    pd.testing.assert_frame_equal(again.frame, whole.frame)


def test_the_same_seed_gives_the_same_frame():
    one = [Noise(scales=(0.3,), draws=1)]
    first, again, other = (attack(toy(), make_facts(2), suite=one, seed=s, progress=False).frame for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first["probability"] != other["probability"]).any()


def test_questions_of_a_batch_size_that_is_changed_are_answered_alike():
    first, other = (
        attack(toy(), make_facts(2), suite=[Quantise()], batch_size=size, progress=False).frame for size in (64, 3)
    )
    pd.testing.assert_frame_equal(first, other, rtol=1e-5)


@pytest.mark.parametrize("subjects", [True, False])
def test_facts_without_folds_are_relearned_in_halves_and_that_is_said(subjects: bool):
    facts = make_facts(None)
    facts = facts.with_items(
        replace(fact, subject=f"s{place // 2}" if subjects else None) for place, fact in enumerate(facts)
    )
    given = Given(facts, Facts([]))
    partings = list(Relearn().partings(given))
    assert [name for name, _, _ in partings] == ["half 1", "half 2"]
    for _, train, test in partings:
        shown, asked = ({fact_of(fact.id) for fact in part} for part in (train, test))
        assert shown and asked and not shown & asked and shown | asked == {fact.id for fact in facts}
        assert not subjects or not {fact.subject for fact in train} & {fact.subject for fact in test}
    (note,) = Relearn().notes(toy(), given)
    assert note.startswith("relearn: the forget facts are not parted in folds") and ("in turn" in note) is not subjects
    folded = Given(make_facts(2), Facts([]))
    assert Relearn().notes(toy(), folded) == [] and next(iter(Relearn().partings(folded)))[0] == "folds 0"


def test_one_fold_beside_facts_without_any_are_two_parts():
    facts = make_facts(2)
    facts = facts.with_items(replace(fact, fold=fact.fold or None) for fact in facts)  # 1 and None
    given = Given(facts, Facts([]))
    assert [name for name, _, _ in Relearn().partings(given)] == ["fold 1", "no fold"]
    assert Relearn().needs(given) is None and Relearn().notes(toy(), given) == []


def test_what_a_named_suite_lacks_is_left_out_aloud(caplog):
    facts = make_facts(None)
    facts = facts.with_items(replace(fact, subject="one") for fact in facts)
    chosen, left_out = possible_attacks("quick", Given(facts, Facts([])))
    assert [one.name for one in chosen] == ["prompts", "quantise"]
    assert left_out == {"relearn (epochs=3)": "forget facts in two folds, or of two subjects"}
    chosen, left_out = possible_attacks("default", Given(make_facts(2), Facts([])))
    assert set(left_out.values()) == {
        "near facts", "far facts", "general text", "the model before unlearning",
        "3 distractors of every fact that it trains on",
    }  # fmt: skip
    assert len(chosen) + len(left_out) == len(SUITES["default"])
    found = attack(toy(), facts, suite="quick", progress=False)
    assert "attack relearn (epochs=3) left out: it needs forget facts in two folds, or of two subjects" in caplog.text
    assert set(found.frame["attack"]) == {"none", "prompts", "quantise"}
    assert list(found.about["settings"]["left_out"]) == ["relearn (epochs=3)"]


def test_what_an_attack_lacks_is_an_error_where_it_was_asked_for():
    for wanted, message in (
        (["relearn"], "attack relearn: it needs forget facts in two folds"),
        ("steer", "attack steer: it needs the model before"),
        ([Relearn(data="text", epochs=1)], r"relearn \(data=text, epochs=1\): it needs general text"),
        ("relearn", "suite 'relearn': none of its attacks can be run; they need forget facts in two folds"),
        ("flattery", "unknown attack 'flattery'; suites are quick, relearn, default, attacks relearn, prompts"),
        ([], "no attack to run"),
    ):
        facts = make_facts(None)
        facts = facts.with_items(replace(fact, subject="one") for fact in facts)
        with pytest.raises(UserError, match=message):
            attack(toy(), facts, suite=wanted, progress=False)


def test_without_facts_to_forget():
    facts = Facts([replace(fact, role="near") for fact in make_facts()], name="kept")
    with pytest.raises(UserError, match="kept: no facts to ask for"):
        attack(toy(), facts, progress=False)
    with pytest.raises(UserError, match="has no answer"):
        attack(toy(), Facts([Fact("the house is", None, role="forget")]), suite=["prompts"], progress=False)


def test_models_that_do_not_match_are_named():
    other = load(tiny("gpt2"), tokenizer=tokenizer(), device="cpu")
    for name in ("before", "never_knew"):
        with pytest.raises(UserError, match=name.replace("_", "-") + " "):
            attack(toy(), make_facts(), suite=["prompts"], progress=False, **{name: other})


def test_attacks_asked_for_twice_run_once():
    chosen, _ = possible_attacks(["prompts", Prompts(), Noise(), "noise"], Given(make_facts(), Facts([])))
    assert chosen == (Prompts(), Noise())


def test_suites_hold_no_attack_twice_and_no_setting_twice():
    for attacks in SUITES.values():
        assert len(set(attacks)) == len(attacks) == len({label(one) for one in attacks})
        own = [one.label for one in attacks if isinstance(one, Relearn)]
        assert len(set(own)) == len(own)
    assert all(one.name == name for name, one in ATTACKS.items())
    assert attack_settings(Noise()) == {"attack": "noise", "scales": [0.01, 0.03, 0.1], "draws": 3}
