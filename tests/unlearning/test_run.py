"""The verb: forgets, keeps, writes down, refuses."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from mechunlearn.errors import UserError
from mechunlearn.facts import Facts
from mechunlearn.unlearning import DPO, METHODS, NPO, GradientDifference, Layered, unlearn
from mechunlearn.unlearning.configure import method_of
from mechunlearn.unlearning.settings import settings_of

from .conftest import TEXT
from .test_resume import digest

QUICK = {"steps": 12, "learning_rate": 3e-3, "batch_size": 8, "evaluate_every": 4, "progress": False}
LONG = {"steps": 60, "learning_rate": 6e-3, "evaluate_every": 20}


@pytest.mark.parametrize("name", ["gradient_difference", "npo", "dpo"])
def test_forgets_and_keeps(knowing, facts, name):
    before = digest(knowing)
    result = unlearn(knowing, METHODS[name], facts.forget, facts.retain, text=TEXT, **QUICK | LONG)
    first, last = result.frame.iloc[0], result.frame.iloc[-1]
    assert first["forget_recall"] == first["near_recall"] == first["far_recall"] == 1
    assert last["forget_recall"] <= 0.25
    assert last["near_recall"] >= 2 / 3
    assert last["forget_probability"] < 0.25 < 0.6 < last["near_probability"]
    assert first["text_kl"] == pytest.approx(0, abs=1e-6)
    assert last["text_kl"] > 0
    assert digest(knowing) == before
    assert digest(result.model) != before
    assert not result.model.training
    assert result.about["stopped"] == "all steps done"
    assert result.about["step"] == 60
    assert result.stages == (result.model,)


def test_frame(knowing, facts):
    options = QUICK | {"steps": 6, "evaluate_every": 4}
    frame = unlearn(knowing, NPO(), facts.forget, facts.retain, text=TEXT, retain_text=TEXT, **options).frame
    assert list(frame) == [
        "stage", "step", "loss", "loss_forget", "loss_retain", "loss_text", "gradient_norm", "learning_rate",
        "forget_recall", "forget_probability", "near_recall", "near_probability", "far_recall", "far_probability",
        "text_loss", "text_kl", "text_entropy", "inside", "scale", "seconds", "tokens",
    ]  # fmt: skip
    assert frame["step"].tolist() == [0, 4, 6]
    assert frame["loss"].isna().tolist() == [True, False, False]
    sums = frame["loss_forget"] + frame["loss_retain"] + frame["loss_text"]
    assert frame["loss"][1:].tolist() == pytest.approx(sums[1:].tolist())
    assert frame["tokens"].is_monotonic_increasing
    assert frame["seconds"].is_monotonic_increasing
    assert frame["inside"].all()


def test_losses_are_means_over_the_steps_since_the_last_look(knowing, facts):
    def losses(every):
        options = QUICK | {"steps": 5, "evaluate_every": every}
        return unlearn(knowing, NPO(), facts.forget, facts.retain, **options).frame["loss"].tolist()

    single = losses(1)
    assert losses(2)[1:] == pytest.approx([sum(single[1:3]) / 2, sum(single[3:5]) / 2, single[5]])


def test_looking_changes_nothing(knowing, facts):
    def weights(**options):
        return digest(unlearn(knowing, NPO(), facts.forget, facts.retain, **QUICK | {"steps": 4} | options).model)

    assert weights(evaluate_every=1) == weights(evaluate_every=50) == weights(text=TEXT) == weights(progress=True)


def test_same_seed_same_result(knowing, facts):
    def outcome(seed):
        result = unlearn(knowing, DPO(), facts.forget, facts.retain, **QUICK | {"steps": 4}, seed=seed)
        return digest(result.model), result.frame.drop(columns="seconds").to_json()

    assert outcome(1) == outcome(1)
    assert outcome(1)[0] != outcome(2)[0]


def test_saved_models_are_those_of_transformers(knowing, facts, tmp_path):
    result = unlearn(knowing, NPO(), facts.forget, facts.retain, run=tmp_path / "npo", **QUICK)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "npo" / "model")
    ids = knowing.tokenizer("the house of anna is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, result.model(ids))


def test_settings_tell_what_decides_the_result(knowing, facts):
    method = NPO(beta=0.3)
    settings = unlearn(knowing, method, facts.forget, facts.retain, text=TEXT, **QUICK | {"steps": 1}).about["settings"]
    assert settings["method"] == "npo"
    assert settings["settings"] == settings_of(method)
    assert settings["settings"]["beta"] == 0.3
    assert settings["forget"] == facts.forget.hash
    assert settings["retain_text"] is None
    assert settings["text"] is not None
    assert "progress" not in settings


def bad_inputs(facts):
    forget, retain = facts.forget, facts.retain
    empty = facts.where(id="nobody")
    silent = Facts([replace(forget[0], answer=None), *forget.items[1:]])
    return {
        "no facts to forget": ({"forget": empty}, "no facts to forget"),
        "no facts to retain": ({"retain": empty}, "no facts to retain"),
        "a fact in both": ({"retain": Facts([*retain, forget[0]])}, "1 of 4 facts to forget are also facts to retain"),
        "forget equal to retain": ({"retain": forget}, "4 of 4 facts to forget are also facts to retain"),
        "no answer": ({"forget": silent}, "'anna#h0' has no answer"),
        "no distractors": (
            {"method": DPO(), "forget": Facts([replace(fact, distractors=()) for fact in forget])},
            "'anna' has no distractors",
        ),
        "too long": ({"retain": Facts([replace(retain[0], prompt="the " * 40)])}, "more than the context of 32"),
        "one string": ({"text": TEXT[0]}, r"text must be a list of passages, not one string: text=\[…\]"),
        "retain string": ({"retain_text": TEXT[0]}, "retain_text must be a list of passages"),
        "no text": ({"text": []}, "no text"),
        "no text to retain": ({"retain_text": []}, "no text"),
        "batch": ({"batch_size": 2, "accumulation": 3}, "cannot be split"),
    }  # fmt: skip


@pytest.mark.parametrize("case", [
    "no facts to forget", "no facts to retain", "a fact in both", "forget equal to retain", "no answer",
    "no distractors", "too long", "one string", "retain string", "no text", "no text to retain",
    "batch",
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(knowing, facts, tmp_path, case):
    changed, message = bad_inputs(facts)[case]
    arguments = (
        {"method": NPO(), "forget": facts.forget, "retain": facts.retain, "run": tmp_path / "run"} | QUICK | changed
    )
    with pytest.raises(UserError, match=message):
        unlearn(knowing, **arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", [NPO, None, 3])
def test_what_is_no_method_is_named(method):
    with pytest.raises(UserError, match=r"method must be one with its settings, such as NPO\(\), or a name, not"):
        method_of(method)


def test_a_method_by_its_name():
    assert method_of("rmu") is METHODS["rmu"]
    assert method_of(layered := Layered(method=NPO())) is layered
    with pytest.raises(UserError, match="method 'nope': not one of gradient_ascent, "):
        method_of("nope")


def test_model_without_tokenizer_is_refused(knowing, facts, monkeypatch):
    monkeypatch.setattr(knowing, "tokenizer", None)
    with pytest.raises(UserError, match="no tokenizer"):
        unlearn(knowing, GradientDifference(), facts.forget, facts.retain, **QUICK)
