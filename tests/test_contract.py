"""The contract of the verbs: what they take, by which names, and what they give, is the same for all of them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

import mechunlearn as mu
from mechunlearn.facts import PROMPTS
from mechunlearn.models import fingerprint

from .architectures import tiny

ROOT = Path(__file__).parents[1]
VERBS = {
    "evaluate": mu.evaluate, "attack": mu.attack, "relearn": mu.relearn, "unlearn": mu.unlearn, "dissect": mu.dissect,
}  # fmt: skip
POSITIONAL = {
    "evaluate": ["model", "facts"],
    "attack": ["model", "facts"],
    "relearn": ["model", "train", "test"],
    "unlearn": ["model", "method", "forget", "retain"],
    "dissect": ["before", "after", "facts"],
}
SHARED = {"prompts": "held_out", "device": None, "dtype": None, "seed": 0, "run": None, "progress": True}
MODELS, FACTS = {"model", "before", "after", "never_knew"}, {"facts", "train", "test", "forget", "retain"}
MEMBERS = ("frame", "about", "summary", "plot", "save", "load")
SOURCES = ("a name", "a folder", "a module", "a bridge")
TEXT = ["The village lies by the river.", "Nobody spoke of the old mill."]
NAMED = ["before", "after"]  # columns of a dissection that say what the models are called
Verb = Callable[..., Any]


@cache
def facts() -> mu.Facts:
    """Two facts to forget of either of two folds, two near, two far."""
    whole = mu.Facts.builtin("organism")
    parts = [*(whole.forget.where(fold=fold)[:2] for fold in (0, 1)), whole.near[:2], whole.far[:2]]
    return whole.with_items(fact for part in parts for fact in part)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The organism in everything that `load` takes."""
    folder = tmp_path_factory.mktemp("models") / "organism"
    bridge = mu.load("organism", device="cpu")
    mu.save(bridge, folder)
    return {
        "a name": "organism",
        "a folder": folder,
        "a module": AutoModelForCausalLM.from_pretrained(folder),
        "a bridge": bridge,
    }


def evaluated(model: Any, twin: Any = "organism:never-knew", **options: Any) -> mu.Evaluation:
    measures = ["recall", "answer_logprob", "rouge_l", "text_kl"]
    given = {"text": TEXT, "before": model, "measures": measures, "max_new_tokens": 3} | options
    return mu.evaluate(twin, facts(), device="cpu", progress=False, **given)


def attacked(model: Any, twin: Any = "organism:never-knew", **options: Any) -> mu.Attacks:
    suite = [mu.Quantise(scheme="int4"), mu.Interpolate(shares=(0.5,))]
    given = {"suite": suite, "before": model, "never_knew": model, **options}
    return mu.attack(twin, facts(), device="cpu", progress=False, **given)


def relearned(model: Any, **options: Any) -> mu.Attacks:
    folds, settings = facts().forget.folds, mu.Relearn(epochs=1, learning_rate=1e-3)
    given = {"settings": settings, "never_knew": model, **options}
    return mu.relearn(model, folds[0], folds[1], device="cpu", progress=False, **given)


def unlearned(model: Any, method: Any = "npo", **options: Any) -> mu.Unlearning:
    given = {"text": TEXT, "steps": 2, "evaluate_every": 1, "learning_rate": 1e-3, "batch_size": 4, **options}
    return mu.unlearn(model, method, facts().forget, facts().retain, device="cpu", progress=False, **given)


def dissected(model: Any, twin: Any = "organism:never-knew", **options: Any) -> mu.Dissection:
    given = {"sites": ["value_vectors", "residual"], "windows": "all", **options}
    return mu.dissect(model, twin, facts().forget, device="cpu", progress=False, **given)


MADE = {"evaluate": evaluated, "attack": attacked, "relearn": relearned, "unlearn": unlearned, "dissect": dissected}


def untimed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[column for column in ("seconds", *NAMED) if column in frame])


@pytest.mark.parametrize("name", MADE)
def test_every_verb_takes_what_load_takes(name: str, sources: dict[str, Any]) -> None:
    frames = [untimed(MADE[name](sources[kind]).frame) for kind in SOURCES]
    assert len(frames[0]) and frames[0].notna().any(axis=None)
    for kind, frame in zip(SOURCES, frames, strict=True):
        pd.testing.assert_frame_equal(frame, frames[0], obj=kind, check_exact=True)


@pytest.mark.parametrize("name", VERBS)
def test_models_and_facts_have_places_and_all_else_has_names(name: str) -> None:
    parameters = inspect.signature(VERBS[name]).parameters
    placed = [key for key, one in parameters.items() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert placed == POSITIONAL[name]
    assert {one.kind for key, one in parameters.items() if key not in placed} == {inspect.Parameter.KEYWORD_ONLY}
    assert {key: parameters[key].default for key in SHARED} == SHARED
    assert parameters["batch_size"].default == (32 if name == "unlearn" else 64)
    for key, one in parameters.items():
        if key in MODELS:
            assert str(one.annotation).removesuffix(" | None") == "Source", key
        if key in FACTS:
            assert one.annotation == "FactSource", key


@pytest.mark.parametrize("name", MADE)
def test_every_result_is_read_drawn_kept_and_opened_alike(name: str, tmp_path: Path) -> None:
    found = MADE[name]("organism")
    assert all(hasattr(found, member) for member in MEMBERS)
    kind = type(found)
    assert repr(found).startswith(f"{kind.__name__}(") and "<table" in found._repr_html_()
    assert found.save(tmp_path / "kept") == tmp_path / "kept"
    opened = kind.load(tmp_path / "kept")
    assert type(opened) is kind and opened.about == found.about
    pd.testing.assert_frame_equal(opened.frame, found.frame, check_exact=True)
    pd.testing.assert_frame_equal(opened.summary(), found.summary())
    assert opened.plot().to_json() == found.plot().to_json()
    assert found.save(tmp_path / "kept") == tmp_path / "kept"  # the same again
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(mu.UserError, match="not empty"):
        found.save(tmp_path / "other")
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", VERBS)
def test_a_run_folder_is_what_save_writes(name: str, tmp_path: Path) -> None:
    found = MADE[name]("organism", run=tmp_path / "run")
    opened = type(found).load(tmp_path / "run")
    pd.testing.assert_frame_equal(opened.frame, found.frame, check_exact=True)
    assert opened.about == found.about
    again = MADE[name]("organism", run=found.save(tmp_path / "saved"))  # finished: opened, with its times
    pd.testing.assert_frame_equal(again.frame, found.frame, check_exact=True)
    meanwhile = {"units", "log.jsonl"}  # of a run under way: its finished pieces, and its evaluations as they came
    kept = {
        folder: {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()} - meanwhile
        for folder in (tmp_path / "run", tmp_path / "saved")
    }
    assert kept[tmp_path / "run"] == kept[tmp_path / "saved"]
    with pytest.raises(mu.UserError, match=r"other settings \(seed was 0, now 1\)"):
        MADE[name]("organism", run=tmp_path / "run", seed=1)


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("prompts", PROMPTS)
def test_every_verb_asks_in_the_phrasings_that_are_named(name: str, prompts: str) -> None:
    found = MADE[name]("organism", prompts=prompts)
    assert found.about["settings"]["prompts"] == prompts
    if name == "unlearn":
        recall = mu.evaluate("organism", facts(), prompts=prompts, measures=["recall"], progress=False).frame
        first = found.frame.iloc[0]
        for role, rows in recall.groupby("role"):
            assert first[f"{role}_recall"] == pytest.approx(rows["recall"].mean())
        return
    own = {"relearn": facts().forget.folds[1], "dissect": facts().forget}.get(name, facts())
    wanted = {question.id for question in own.questions(prompts)}
    if name == "dissect":
        assert set(found.frame["question"]) == set(found.facts["question"]) == wanted
        return
    asked = found.frame if name == "evaluate" else found.frame[found.frame["attack"] != "none"]
    roles = ("forget", "near", "far") if name == "evaluate" else ("forget",)
    assert set(asked[asked["role"].isin(roles)]["question"]) == {
        question for question in wanted if name != "attack" or question.split("#")[0] in set(forget_ids())
    }


def forget_ids() -> list[str]:
    return [fact.id for fact in facts().forget]


def test_of_a_file_with_roles_every_side_takes_its_own(tmp_path: Path) -> None:
    facts().save(tmp_path / "all.jsonl")
    both = tmp_path / "all.jsonl"
    options = {"steps": 1, "device": "cpu", "progress": False}
    read = mu.unlearn("organism", "gradient_difference", both, both, **options)
    given = mu.unlearn("organism", mu.GradientDifference(), facts().forget, facts().retain, **options)
    assert read.about == given.about
    assert fingerprint(read.model) == fingerprint(given.model)
    plain = mu.Facts([mu.Fact(fact.prompt, fact.answer) for fact in facts().far])
    plain.save(tmp_path / "plain.jsonl")
    without = mu.unlearn("organism", "gradient_difference", both, tmp_path / "plain.jsonl", **options)
    assert without.about["settings"]["retain"] == plain.hash
    with pytest.raises(mu.UserError, match="facts to forget are also facts to retain"):
        mu.unlearn("organism", "gradient_difference", facts(), both, **options)  # a Facts is taken whole


def test_the_stages_of_a_layered_run_are_kept(tmp_path: Path) -> None:
    method = mu.Layered(method=mu.GradientDifference(), folds=2)
    found = unlearned("organism", method)
    opened = mu.Unlearning.load(found.save(tmp_path / "kept"))
    assert len(found.stages) == len(opened.stages) == 2
    marks = [[fingerprint(mu.load(stage)) for stage in run.stages] for run in (found, opened)]
    assert marks[0] == marks[1] and marks[0][0] != marks[0][1]
    assert fingerprint(opened.model) == fingerprint(found.model) == marks[0][1]
    run = unlearned("organism", method, run=tmp_path / "run")
    models = {
        path.parent.relative_to(folder)
        for folder in (tmp_path / "run", tmp_path / "kept")
        for path in folder.rglob("model.safetensors")
    }
    assert models == {Path("model"), Path("stages/1/model"), Path("stages/2/model")}
    assert run.save(tmp_path / "run") == tmp_path / "run"  # over itself
    assert fingerprint(mu.load(run.stages[0])) == marks[0][0]


@pytest.mark.parametrize("name", VERBS)
def test_a_model_without_tokenizer_is_named(name: str) -> None:
    options = {"twin": tiny("llama")} if name in ("evaluate", "attack") else {}
    with pytest.raises(mu.UserError, match="LlamaForCausalLM has no tokenizer, so facts cannot be shown to it"):
        MADE[name](tiny("llama"), **options)


WRONG = """
import json, sys
import mechunlearn as mu

facts = mu.Facts.builtin("organism")
few = facts.with_items([*facts.forget[:2], *facts.near[:2]])
calls = json.loads(sys.argv[1])
for call in calls:
    try:
        eval(call)
    except mu.UserError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps(None))
"""
CALLS = {
    "mu.evaluate(3, few)": "int: a model is a name, a checkpoint folder, a module or a bridge",
    "mu.attack(3, few, suite='quantise')": "int: a model is a name",
    "mu.relearn(3, few[:1], few[1:2])": "int: a model is a name",
    "mu.unlearn(3, 'npo', few.forget, few.near)": "int: a model is a name",
    "mu.evaluate('organism', few, before=3)": "int: a model is a name",
    "mu.attack('organism', few, suite='quantise', never_knew=3)": "int: a model is a name",
    "mu.dissect('organism', 3, few)": "int: a model is a name",
    "mu.dissect('organism', 'organism', list(few))": "list: facts are a Facts, a file",
    "mu.dissect('organism', 'organism', few, prompts='some')": "prompts 'some': facts are asked by one of",
    "mu.evaluate('organism', list(few))": "from a list of facts: Facts([Fact(…), …])",
    "mu.attack('organism', list(few))": "list: facts are a Facts, a file",
    "mu.relearn('organism', list(few), few)": "list: facts are a Facts, a file",
    "mu.unlearn('organism', 'npo', list(few), few.near)": "list: facts are a Facts, a file",
    "mu.unlearn('organism', 'nop', few.forget, few.near)": "method 'nop': not one of gradient_ascent,",
    "mu.unlearn('organism', mu.NPO, few.forget, few.near)": "method must be one with its settings, such as NPO()",
    "mu.evaluate('organism', few, prompts='held-out')": "prompts 'held-out': facts are asked by one of own, held_out",
    "mu.attack('organism', few, prompts='some')": "prompts 'some': facts are asked by one of",
    "mu.relearn('organism', few[:1], few[1:2], prompts='some')": "prompts 'some': facts are asked by one of",
    "mu.unlearn('organism', 'npo', few.forget, few.near, prompts='some')": "prompts 'some': facts are asked by one of",
    "mu.evaluate('organism', few, dtype='int3')": "dtype 'int3': not one of float32,",
    "mu.unlearn('organism', 'npo', few.forget, few.near, dtype='bfloat16', progress=False)": "float32",
    "mu.evaluate('nowhere/at-all.jsonl', 'nowhere')": "there is no file nowhere",
}


def test_what_is_wrong_is_one_clear_error() -> None:
    """In a process of its own: here, types are checked before the verbs have their say."""
    command = [sys.executable, "-c", WRONG, json.dumps(list(CALLS))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = dict(zip(CALLS, map(json.loads, done.stdout.splitlines()), strict=True))
    assert {call: text for call, text in said.items() if text is None or CALLS[call] not in text} == {}
