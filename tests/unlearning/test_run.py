"""The verb: forgets, keeps, writes down, refuses."""

import hashlib
from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from mechunlearn.errors import UserError
from mechunlearn.facts import Facts
from mechunlearn.models import clone, hf
from mechunlearn.unlearning import DPO, METHODS, NPO, GradientDifference, unlearn
from mechunlearn.unlearning import run as module

from .conftest import TEXT

QUICK = {"steps": 12, "learning_rate": 3e-3, "batch": 8, "evaluate_every": 4, "progress": False}

LONG = {"steps": 60, "learning_rate": 6e-3, "evaluate_every": 20}


def digest(model) -> str:
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in hf(model).parameters())
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", METHODS)
def test_forgets_and_keeps(knowing, facts, name):
    before = digest(knowing)
    result = unlearn(knowing, METHODS[name](), facts.forget, facts.retain, text=TEXT, **QUICK | LONG)
    first, last = result.frame.iloc[0], result.frame.iloc[-1]
    assert first["forget_recall"] == first["near_recall"] == first["far_recall"] == 1
    assert last["forget_recall"] == 0
    assert last["near_recall"] == last["far_recall"] == 1
    assert last["forget_probability"] < 0.1 < 0.8 < last["near_probability"]
    assert first["text_kl"] == pytest.approx(0, abs=1e-6)
    assert last["text_kl"] > 0
    assert digest(knowing) == before
    assert digest(result.model) != before
    assert not result.model.training
    assert result.about["stopped"] == "all steps done"


def test_frame(knowing, facts):
    options = QUICK | {"steps": 6}
    frame = unlearn(knowing, NPO(), facts.forget, facts.retain, text=TEXT, retain_text=TEXT, **options).frame
    assert list(frame) == [
        "step", "loss", "loss_forget", "loss_retain", "loss_text",
        "forget_recall", "forget_probability", "near_recall", "near_probability", "far_recall", "far_probability",
        "text_loss", "text_kl", "seconds", "tokens",
    ]  # fmt: skip
    assert frame["step"].tolist() == [0, 4, 6]
    assert frame["loss"].isna().tolist() == [True, False, False]
    assert frame["loss_forget"][1] < 20 * 0.6932
    sums = frame["loss_forget"] + frame["loss_retain"] + frame["loss_text"]
    assert frame["loss"][1:].tolist() == pytest.approx(sums[1:].tolist())
    assert frame["tokens"][0] == 0
    assert frame["tokens"].is_monotonic_increasing
    assert frame["seconds"].is_monotonic_increasing


def test_losses_are_means_over_the_steps_since_the_last_look(knowing, facts):
    def losses(every):
        options = QUICK | {"steps": 5, "evaluate_every": every}
        return unlearn(knowing, NPO(), facts.forget, facts.retain, **options).frame["loss"].tolist()

    single = losses(1)
    assert losses(2)[1:] == pytest.approx([sum(single[1:3]) / 2, sum(single[3:5]) / 2, single[5]])


def test_facts_without_role_and_no_text(knowing, facts):
    kept = Facts([replace(fact, role=None) for fact in facts.retain])
    frame = unlearn(knowing, NPO(), facts.forget, kept, **QUICK | {"steps": 1}).frame
    assert "retain_recall" in frame
    assert not {"near_recall", "far_recall", "text_kl"} & set(frame)
    assert len(frame) == 2


def test_same_seed_same_result(knowing, facts):
    def outcome(seed, method=DPO()):  # noqa: B008
        result = unlearn(knowing, method, facts.forget, facts.retain, **QUICK, seed=seed)
        return digest(result.model), result.frame.drop(columns="seconds").to_json()

    assert outcome(1) == outcome(1)
    assert outcome(1)[0] != outcome(2)[0]


def test_accumulation_gives_the_same_model(knowing, facts):
    options = QUICK | {"steps": 4}
    whole, split = (
        unlearn(knowing, NPO(), facts.forget, facts.retain, retain_text=TEXT, accumulation=count, **options)
        for count in (1, 3)
    )
    for a, b in zip(hf(whole.model).parameters(), hf(split.model).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert whole.frame["tokens"].tolist() == split.frame["tokens"].tolist()


def test_stops_when_forgotten(knowing, facts):
    options = QUICK | {"steps": 200, "evaluate_every": 2}
    result = unlearn(knowing, GradientDifference(), facts.forget, facts.retain, stop=0.3, **options)
    recall = result.frame["forget_recall"]
    assert recall.iloc[-1] <= 0.3
    assert (recall.iloc[:-1] > 0.3).all()
    assert result.frame["step"].iloc[-1] < 200
    assert result.about["stopped"] == "forget recall at or below 0.3"


def test_does_nothing_where_nothing_is_known(knowing, facts):
    wrong = Facts([replace(fact, answer=fact.distractors[0]) for fact in facts.forget])
    result = unlearn(knowing, NPO(), wrong, facts.retain, stop=0.0, **QUICK)
    assert result.frame["step"].tolist() == [0]
    assert digest(result.model) == digest(knowing)


def test_run_folder(knowing, facts, tmp_path, monkeypatch):
    def go(**changed):
        return unlearn(knowing, NPO(), facts.forget, facts.retain, text=TEXT, run=tmp_path / "npo", **QUICK | changed)

    first = go()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "npo" / "model")
    ids = knowing.tokenizer("the house of anna is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, first.model(ids))

    monkeypatch.setattr(module, "train", None)  # a finished run trains nothing
    again = go()
    assert digest(again.model) == digest(first.model)
    pd.testing.assert_frame_equal(again.frame, first.frame)
    assert again.about == first.about
    with pytest.raises(UserError, match="other settings \\(steps was 12, now 13"):
        go(steps=13)


def test_interrupted_run_starts_again(knowing, facts, tmp_path, monkeypatch):
    def go():
        return unlearn(knowing, NPO(), facts.forget, facts.retain, run=tmp_path, **QUICK)

    with monkeypatch.context() as patch:
        patch.setattr(module.RunFolder, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go()
    assert (tmp_path / "model").exists()
    assert len(go().frame) == 4


def test_a_changed_model_is_another_run(knowing, facts, tmp_path):
    unlearn(knowing, NPO(), facts.forget, facts.retain, run=tmp_path, **QUICK | {"steps": 1})
    other = clone(knowing)
    with torch.no_grad():
        next(hf(other).parameters()).view(-1)[0] += 1
    with pytest.raises(UserError, match="other settings \\(model was"):
        unlearn(other, NPO(), facts.forget, facts.retain, run=tmp_path, **QUICK | {"steps": 1})


def bad_inputs(facts):
    forget, retain = facts.forget, facts.retain
    empty = facts.where(id="nobody")
    silent = Facts([replace(forget[0], answer=None), *forget.items[1:]])
    return {
        "no facts to forget": ({"forget": empty}, "no facts to forget"),
        "no facts to retain": ({"retain": empty}, "no facts to retain"),
        "forget also in retain": ({"retain": facts}, "4 of 4 facts to forget are also facts to retain"),
        "no answer": ({"forget": silent}, "'anna#0' has no answer"),
        "no distractors": (
            {"method": DPO(), "forget": Facts([replace(fact, distractors=()) for fact in forget])},
            "'anna' has no distractors",
        ),
        "too long": ({"retain": Facts([replace(retain[0], prompt="the " * 40)])}, "more than the context of 32"),
        "steps": ({"steps": 0}, "steps must be at least 1"),
        "learning rate": ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        "batch": ({"batch": 2, "accumulation": 3}, "cannot be split"),
        "stop": ({"stop": 5.0}, "between 0 and 1"),
        "evaluate_every": ({"evaluate_every": 0}, "evaluate_every must be at least 1"),
        "no text": ({"text": []}, "no text"),
        "no text to retain": ({"retain_text": []}, "no text"),
    }  # fmt: skip


@pytest.mark.parametrize("case", [
    "no facts to forget", "no facts to retain", "forget also in retain", "no answer", "no distractors",
    "too long", "steps", "learning rate", "batch", "stop", "evaluate_every", "no text", "no text to retain",
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(knowing, facts, tmp_path, case):
    changed, message = bad_inputs(facts)[case]
    arguments = (
        {"method": NPO(), "forget": facts.forget, "retain": facts.retain, "run": tmp_path / "run"} | QUICK | changed
    )
    with pytest.raises(UserError, match=message):
        unlearn(knowing, **arguments)
    assert not (tmp_path / "run").exists()


def test_model_without_tokenizer_is_refused(knowing, facts, monkeypatch):
    monkeypatch.setattr(knowing, "tokenizer", None)
    with pytest.raises(UserError, match="no tokenizer"):
        unlearn(knowing, NPO(), facts.forget, facts.retain, **QUICK)


def test_divergence_is_named(knowing, facts, tmp_path):
    with pytest.raises(UserError, match="not finite at step"):
        unlearn(
            knowing,
            GradientDifference(),
            facts.forget,
            facts.retain,
            run=tmp_path,
            **QUICK | {"learning_rate": 1e30},
        )
    assert not (tmp_path / "model").exists()
