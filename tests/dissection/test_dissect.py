"""The verb as a whole: frames, controls, folders, interruption, and what it refuses."""

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechunlearn.dissection import Dissection, dissect, single, sliding
from mechunlearn.dissection.sweep import Sweep
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts
from mechunlearn.models import clone, load, save, slots
from mechunlearn.runs import RunFolder
from mechunlearn.sites import DEFAULT

from ..architectures import LAYERS, VOCABULARY, tiny
from ..pairs import changed, word_level

WORDS = [f"w{number}" for number in range(VOCABULARY - 3)]
COLUMNS = [
    "fact", "question", "subject", "site", "kind", "direction", "first_layer", "last_layer", "position", "token",
    "metric", "distance", "baseline", "recovery", "defined",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    tokenizer = word_level(WORDS, tmp_path_factory.mktemp("tokenizer"))
    model = load(tiny("llama"), device="cpu", tokenizer=tokenizer)
    return model, changed(model, lambda slot: slot.layer >= 1 and "mlp_keys" in slot.roles, 0.3)


def make_facts(n=7, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        words = rng.choice(WORDS, 4 + number % 4 + 2)
        rows.append(Fact(" ".join(words[:-2]), " ".join(words[-2:]), id=f"fact-{number}"))
    return Facts(rows)


FACTS = make_facts()


@pytest.fixture(scope="module")
def result(pair):
    return dissect(*pair, FACTS, windows=[single(), sliding(3)], progress=False)


def test_one_row_a_fact_site_window_and_metric(result):
    frame = result.frame
    assert list(frame.columns[: len(COLUMNS)]) == COLUMNS
    layered = len(set(single()(LAYERS)) | set(sliding(3)(LAYERS)))
    assert len(frame) == 7 * 4 * (layered * 6 + 2)
    assert not frame.duplicated(["fact", "site", "first_layer", "last_layer", "metric"]).any()
    assert set(frame["site"]) == set(DEFAULT)
    assert frame["defined"].all()
    assert np.allclose(frame["recovery"], 1 - frame["distance"] / frame["baseline"])
    assert set(frame.loc[frame["site"] == "embedding", "first_layer"]) == {-1}
    assert list(frame["fact"].unique()) == [fact.id for fact in FACTS]


def test_the_cause_is_found(result):
    """Only the keys were changed: they recover all, value vectors and attention parameters nothing."""
    mse = result.frame.query("metric == 'mse'").groupby(["site", "first_layer", "last_layer"], observed=True)
    recovery = mse["recovery"].mean()
    assert recovery["mlp_keys", 1, 3] > 0.999
    assert abs(recovery["value_vectors"]).max() < 1e-6
    assert abs(recovery["attention"]).max() < 1e-6
    assert recovery["mlp_coefficients", 1, 3] > 0.999
    assert result.about["comparison"]["differ"] == 6


def test_controls_pass_and_say_what_they_measured(result):
    controls = result.controls
    assert list(controls.columns) == ["control", "site", "metric", "expected", "measured", "tolerance", "passed"]
    checked = controls[controls["expected"].notna()]
    assert checked["passed"].all()
    assert (checked["measured"] - checked["expected"]).abs().max() < 1e-5
    assert {"empty window: nothing is patched", "every parameter restored"} <= set(controls["control"])
    assert set(controls.loc[controls["control"].str.startswith("patched with its own"), "measured"]) == {0.0}


def test_a_broken_engine_fails_the_controls(pair, monkeypatch):
    from mechunlearn.dissection import patches

    real = patches.resume
    monkeypatch.setattr(patches, "resume", lambda *arguments: real(*arguments) + 0.01)
    controls = dissect(*pair, FACTS, sites=("mlp_coefficients",), windows="all", progress=False).controls
    assert not controls.loc[controls["expected"].notna(), "passed"].all()


def test_before_equal_to_after_is_undefined_never_nan_in_a_mean(pair):
    result = dissect(pair[0], clone(pair[0]), FACTS, windows="sliding:3", progress=False)
    assert not result.frame["defined"].any()
    assert result.frame["recovery"].isna().all()
    assert (result.frame["distance"] >= 0).all()
    summary = result.summary()
    assert (summary["n"] == 0).all()
    assert (summary["n_undefined"] == len(FACTS)).all()
    assert summary["mean_of_ratios"].isna().all()
    assert result.about["comparison"]["differ"] == 0


def test_some_facts_undefined_are_counted_and_left_out(pair):
    """A change that one token alone can see: facts without it stay as they were."""
    token = pair[0].tokenizer.convert_tokens_to_ids("w5")
    after = clone(pair[0])
    with torch.no_grad():
        next(s for s in slots(after) if "embedding" in s.roles).tensor[token] += 1
    facts = Facts([Fact("w5 w1 w2", "w3"), Fact("w1 w2 w4", "w3"), Fact("w7 w5", "w9"), Fact("w8", "w5")])
    result = dissect(pair[0], after, facts, sites=("embedding", "value_vectors"), windows="single", progress=False)
    mse = result.frame.query("metric == 'mse' and site == 'embedding'").set_index("fact")
    assert mse["defined"].to_dict() == {"0": True, "1": False, "2": True, "3": False}
    summary = result.summary().query("metric == 'mse' and site == 'embedding'").iloc[0]
    assert (summary["n"], summary["n_undefined"], summary["mean_of_ratios"]) == (2, 2, 1.0)


def test_the_other_direction_injects_the_damage(pair):
    forward = dissect(*pair, FACTS, sites=("mlp_keys",), windows="all", progress=False)
    back = dissect(*pair, FACTS, sites=("mlp_keys",), windows="all", direction="after->before", progress=False)
    assert set(back.frame["direction"]) == {"after->before"}
    assert back.frame["recovery"].min() > 0.999
    mse = "metric == 'mse'"  # symmetric, so both directions have the same denominator
    assert np.allclose(forward.frame.query(mse)["baseline"], back.frame.query(mse)["baseline"], rtol=1e-5)
    kl = "metric == 'kl'"  # not symmetric
    assert not np.allclose(forward.frame.query(kl)["baseline"], back.frame.query(kl)["baseline"], rtol=1e-2)
    pd.testing.assert_frame_equal(forward.facts.filter(like="before"), back.facts.filter(like="before"))


def test_what_the_models_say_is_told(pair, result):
    model, _ = pair
    for fact, row in zip(FACTS, result.facts.itertuples(), strict=True):
        prompt = model.tokenizer(fact.prompt, add_special_tokens=False)["input_ids"]
        answer = model.tokenizer(fact.answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer]))[0].double().log_softmax(-1)
        expected = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
        assert row.before_logprob == pytest.approx(expected, rel=1e-4)
        said = model.tokenizer.decode(logits[len(prompt) - 1 : len(prompt) - 1 + len(answer)].argmax(-1))
        assert row.before_answer == said
        assert row.before_correct == (said == fact.answer)


def test_each_position_is_a_map_with_tokens(pair):
    result = dissect(*pair, FACTS[:3], sites=("residual",), windows="single", positions="each", progress=False)
    lengths = [len(fact.prompt.split()) + 1 for fact in FACTS[:3]]
    per_fact = result.frame.query("metric == 'mse'").groupby("fact", sort=False).size()
    assert per_fact.tolist() == [length * LAYERS for length in lengths]
    first = result.frame.query("metric == 'mse' and fact == 'fact-0' and first_layer == 0")
    assert " ".join(first["token"]) == f"{FACTS[0].prompt} {FACTS[0].answer.split()[0]}"
    assert first["position"].tolist() == list(range(lengths[0]))


def test_the_papers_positions_are_other_numbers(pair):
    right = dissect(*pair, FACTS, sites=("mlp_coefficients",), windows="all", progress=False)
    paper = dissect(*pair, FACTS, sites=("mlp_coefficients",), windows="all", positions="paper", progress=False)
    assert not np.allclose(*(r.frame.query("metric == 'mse'")["baseline"] for r in (right, paper)), rtol=1e-3)
    logprob = "metric == 'answer_logprob'"  # always where the answer is predicted
    assert np.allclose(*(r.frame.query(logprob)["baseline"] for r in (right, paper)), rtol=1e-4)


def test_facts_without_answers_take_the_donors_own(pair):
    result = dissect(*pair, Facts([Fact("w1 w2", None), Fact("w3", None)]), sites=("residual",), progress=False)
    assert result.facts["before_correct"].all()
    assert result.facts["answer"].str.split().str.len().max() <= 30


def test_saved_and_opened_again(result, tmp_path):
    folder = result.save(tmp_path / "dissection")
    again = Dissection.load(folder)
    pd.testing.assert_frame_equal(again.frame, result.frame)
    pd.testing.assert_frame_equal(again.facts, result.facts)
    assert again.about["noise_floor"] == result.about["noise_floor"]
    pd.testing.assert_frame_equal(again.summary(resamples=50), result.summary(resamples=50))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_the_numbers_of_single_with_the_same_weights(pair, dtype):
    """Every metric, site, window and control; and the floor is that of float32."""
    coarse_pair = [load(model, dtype=dtype) for model in pair]
    fine_pair = [load(model, dtype="float32") for model in coarse_pair]
    coarse, fine = (
        dissect(*models, FACTS, windows="single,all", progress=False) for models in (coarse_pair, fine_pair)
    )
    assert set(coarse.frame["dtype"]) == {dtype} and coarse.frame["defined"].equals(fine.frame["defined"])
    for column in ("distance", "baseline"):
        np.testing.assert_allclose(coarse.frame[column], fine.frame[column], rtol=1e-3, atol=1e-7)
    assert coarse.about["noise_floor"] == pytest.approx(fine.about["noise_floor"], rel=1e-2)
    assert coarse.controls["passed"].dropna().all()


SCRIPT = """
import sys
from pathlib import Path
from mechunlearn.dissection import dissect
from tests.dissection.test_dissect import make_facts
folder = Path(sys.argv[1])
options = {"windows": "sliding:3", "run": folder / "run", "batch_size": 2, "device": "cpu"}
dissect(folder / "before", folder / "after", make_facts(24), **options)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_frame(pair, tmp_path):
    for name, model in zip(("before", "after"), pair, strict=True):
        save(model, tmp_path / name)
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    options = {
        "cwd": Path(__file__).parents[2],
        "env": os.environ | {"OMP_NUM_THREADS": "1"},
        "stderr": subprocess.DEVNULL,
    }
    kills = 0
    for wanted in (1, 4, 8):
        process = subprocess.Popen(arguments, **options)
        while process.poll() is None and len(list((tmp_path / "run" / "units").glob("0*.parquet"))) < wanted:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    done = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "units").glob("0*.parquet")}
    subprocess.run(arguments, check=True, **options)
    assert all((tmp_path / "run" / "units" / name).stat().st_mtime_ns == when for name, when in done.items())
    resumed = Dissection.load(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "interrupted")
    subprocess.run(arguments, check=True, **options)
    whole = Dissection.load(tmp_path / "run")
    pd.testing.assert_frame_equal(resumed.frame, whole.frame, check_exact=True)
    pd.testing.assert_frame_equal(resumed.facts, whole.facts, check_exact=True)


def test_a_finished_run_is_opened_and_one_of_other_settings_refused(pair, tmp_path, monkeypatch):
    options = {"sites": ("mlp_coefficients",), "windows": "all", "progress": False, "run": tmp_path / "run"}
    first = dissect(*pair, FACTS, **options)
    monkeypatch.setattr(Sweep, "units", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(dissect(*pair, FACTS, **options).frame, first.frame)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"other settings \(windows was \['all'\]"):
        dissect(*pair, FACTS, **options | {"windows": "single"})
    with pytest.raises(UserError, match="other settings"):
        dissect(pair[0], clone(pair[0]), FACTS, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": Facts([])}, "no facts"),
        ({"facts": Facts([Fact("w1", "unknown-word")])}, "answer"),
        ({"facts": Facts([Fact(" ".join(WORDS[:70]), "w1")])}, "more than the context of 64"),
        ({"facts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"sites": ("no_such_site",)}, "no such site"),
        ({"windows": [(2, 9)]}, "the model has layers 0 to 3"),
        ({"direction": "sideways"}, "direction 'sideways'"),
        ({"positions": "last"}, "positions 'last'"),
        ({"positions": "each"}, "parameters have no positions"),
        ({"sites": ("blocks.3.attn.hook_q",), "windows": [(0, 1)]}, "nothing to patch"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(pair, tmp_path, change, message):
    arguments = {"facts": FACTS, "progress": False, "run": tmp_path / "run"} | change
    with pytest.raises(UserError, match=message):
        dissect(*pair, **arguments)
    assert not (tmp_path / "run").exists()


def test_models_that_do_not_match_are_refused(pair):
    with pytest.raises(UserError, match="architecture"):
        dissect(pair[0], load(tiny("qwen2"), device="cpu"), FACTS)
    with pytest.raises(UserError, match="has no tokenizer"):
        dissect(load(tiny("llama"), device="cpu"), load(tiny("llama"), device="cpu"), FACTS)


def test_questions_that_the_model_before_answers_with_nothing_are_left_out_and_said(pair, monkeypatch):
    module = importlib.import_module("mechunlearn.dissection.dissect")
    facts = Facts([replace(fact, answer=None) for fact in FACTS[:3]] + [FACTS[3]])
    said = {facts[0].id: FACTS[0].answer, facts[1].id: "", facts[2].id: FACTS[2].answer}
    monkeypatch.setattr(module, "greedy_answers", lambda model, asked, *_, **__: [said[fact.id] for fact in asked])
    found = dissect(*pair, facts, windows="all", progress=False)
    assert set(found.frame["fact"]) == {facts[0].id, facts[2].id, facts[3].id}
    note = "1 of 4 questions are left out, to which the model before says nothing"
    assert found.about["notes"][0] == note and f"Mind: {note}" in str(found)
    same = dissect(*pair, Facts([FACTS[0], FACTS[2], FACTS[3]]), windows="all", progress=False)
    assert found.frame["recovery"].tolist() == same.frame["recovery"].tolist()  # an answer that was given is kept
    monkeypatch.setattr(module, "greedy_answers", lambda model, asked, *_, **__: [""] * len(asked))
    with pytest.raises(UserError, match=r"says nothing to any of the 3 questions.*give them answers"):
        dissect(*pair, facts[:3], windows="all", progress=False)


def test_pieces_of_other_questions_are_not_gone_on_with(pair, tmp_path, monkeypatch, caplog):
    """Batches that a changed code would plan in another way: the same number of rows, other questions in them."""
    run = {"run": tmp_path / "run", "sites": "value_vectors", "windows": "all", "batch_size": 3, "progress": False}
    real = RunFolder.finish_unit

    def stops(self, name, *rest):
        real(self, name, *rest)
        if name == "00001":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_unit", stops)
        with pytest.raises(KeyboardInterrupt):
            dissect(*pair, FACTS, **run)
    units = tmp_path / "run" / "units"
    first, second = (units / f"0000{n}.parquet" for n in (0, 1))
    for suffix in (".parquet", ".json"):
        first.with_suffix(suffix).write_bytes(second.with_suffix(suffix).read_bytes())
    whole = dissect(*pair, FACTS, **(run | {"run": None}))
    assert dissect(*pair, FACTS, **run).frame["recovery"].equals(whole.frame["recovery"])
    assert "00000.parquet: it was made of other things (3 parts where it would be 3; the first" in caplog.text
