"""Killed at any moment, the same call goes on to the same weights and the same frame."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge

from mechunlearn import dissection
from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf
from mechunlearn.runs import read_run
from mechunlearn.runs.files import UNFINISHED
from mechunlearn.unlearning import NPO, RefusalDPO, Unlearning, unlearn
from mechunlearn.unlearning.loop import stage

from .conftest import TEXT
from .interrupted import OPTIONS, go

ROOT = Path(__file__).parents[2]
# Each list is one run: it is killed at the first moment, gone on with, killed at the second, ….
MOMENTS = {
    "npo": [
        "replace:1", "write:1", "backward:2", "bound:3", "write:2", "replace:3", "tensors:1", "half:1",
    ],
    "budget": ["write:2", "measure:1", "write:2", "backward:1", "write:2", "bound:1"],
    "layered": [
        "line:2", "half:1", "model:1", "finish:1", "backward:2", "write:1", "bound:1", "finish:1", "tensors:1",
        "finish:1",
    ],
    "lora": ["replace:2", "write:2", "backward:1", "finish:1"],  # the second file is the first state
}  # fmt: skip


def digest(model: TransformerBridge) -> str:
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in hf(model).parameters())
    return hashlib.sha256(content).hexdigest()


def same(one: Unlearning, other: Unlearning) -> None:
    assert digest(one.model) == digest(other.model)
    assert one.about == other.about
    pd.testing.assert_frame_equal(one.frame.drop(columns="seconds"), other.frame.drop(columns="seconds"))


def logged(folder: Path) -> pd.DataFrame:
    """What the log of a run says, as a frame: a line of JSON a row."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return pd.DataFrame(rows, columns=pd.Index(max(rows, key=len)))


def rest(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def threads():
    """The killed processes compute on one thread, and so does what they are compared with."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder with the interrupted runs."""
    folder = tmp_path_factory.mktemp("killed")
    calls = [f"{case}/{moment}" for case, moments in MOMENTS.items() for moment in moments]
    command = [sys.executable, "-m", "tests.unlearning.interrupted", str(folder), *calls]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{call} killed" for call in calls], done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", MOMENTS)
def test_killed_at_any_moment_and_gone_on_with(case, knowing, facts, killed, threads):
    whole = go(case, knowing, facts, None)
    folder = killed / case
    if case == "npo":
        assert not (folder / "log.jsonl").read_bytes().endswith(b"\n")  # half a line, as the kill left it
    again = go(case, knowing, facts, folder)
    same(again, whole)
    pd.testing.assert_frame_equal(logged(folder), again.frame)
    left = rest(folder)
    assert not [name for name in left if "state" in name or ".model" in name]
    opened = go(case, knowing, facts, folder)
    same(opened, again)
    pd.testing.assert_frame_equal(opened.frame, again.frame)
    assert rest(folder) == left


def test_a_budget_case_really_goes_back(knowing, facts):
    frame = go("budget", knowing, facts, None).frame
    assert (~frame["inside"]).sum() >= 3
    assert frame["scale"].min() < 0.25
    assert frame.loc[frame["inside"], "step"].max() > 0


def interrupted(folder: Path, knowing, facts, monkeypatch, after: int = 3, **changed) -> None:
    """Leave a run behind that ended at its `after`-th step."""
    count = 0

    def step(self, trainer):
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        original(self, trainer)

    original = stage._Loop._step
    with monkeypatch.context() as patch:
        patch.setattr(stage._Loop, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            go("npo", knowing, facts, folder, **changed)


def test_goes_on_from_the_last_evaluation_and_not_from_the_start(knowing, facts, tmp_path, monkeypatch):
    interrupted(tmp_path, knowing, facts, monkeypatch, after=7)
    steps = []
    original = stage._Loop._step

    def step(self, trainer):
        steps.append(trainer.step)
        original(self, trainer)

    monkeypatch.setattr(stage._Loop, "_step", step)
    result = go("npo", knowing, facts, tmp_path)
    # Saving may be skipped where it would take more than a tenth of the time, so not always from step 6.
    assert steps == list(range(steps[0], 8))
    assert steps[0] in (0, 2, 4, 6)
    assert result.frame["step"].tolist() == [0, 2, 4, 6, 8]
    assert result.frame["seconds"].is_monotonic_increasing


def test_dropout_follows_the_step(knowing, facts, tmp_path, monkeypatch):
    model = clone(knowing)
    for block in hf(model).model.layers:
        block.self_attn.attention_dropout = 0.5
    monkeypatch.setattr(stage, "clone", lambda start: _with_dropout(clone(start)))
    whole = unlearn(knowing, NPO(), facts.forget, facts.retain, **OPTIONS)
    plain = go("npo", knowing, facts, None)
    assert digest(whole.model) == digest(plain.model)
    interrupted(tmp_path, knowing, facts, monkeypatch, after=5)
    same(go("npo", knowing, facts, tmp_path), whole)
    monkeypatch.setattr(stage, "clone", clone)
    assert digest(go("npo", knowing, facts, None).model) != digest(whole.model)


def _with_dropout(model: TransformerBridge) -> TransformerBridge:
    """Noise in training that no evaluation sees."""
    layer = hf(model).model.layers[1].mlp.down_proj

    def drop(module, inputs, output):
        return torch.nn.functional.dropout(output, 0.3, training=hf(model).training)

    layer.register_forward_hook(drop)
    return model


def test_other_settings_are_refused(knowing, facts, tmp_path, monkeypatch):
    interrupted(tmp_path, knowing, facts, monkeypatch)
    for changed, message in (
        ({"learning_rate": 1e-3}, "other settings \\(learning_rate was 0.002, now 0.001"),
        ({"text": TEXT[:1]}, "other settings \\(text was"),
        ({"batch_size": 3}, "other settings \\(batch_size was 4, now 3"),
        ({"seed": 1}, "other settings \\(seed was 0, now 1"),
        ({"budget": 0.1}, "other settings \\(budget was None, now"),
        ({"trainable": "value_vectors"}, "other settings \\(trainable was None, now"),
    ):
        with pytest.raises(UserError, match=message):
            go("npo", knowing, facts, tmp_path, **changed)
    with pytest.raises(UserError, match=r"other settings \(settings\.[a-z_.]+ was"):
        unlearn(knowing, NPO(beta=0.2), facts.forget, facts.retain, run=tmp_path, **OPTIONS)
    other = clone(knowing)
    with torch.no_grad():
        next(hf(other).parameters()).view(-1)[0] += 1
    with pytest.raises(UserError, match="other settings \\(model\\.weights was"):
        go("npo", other, facts, tmp_path)
    assert len(go("npo", knowing, facts, tmp_path, progress=True).frame) == 5  # the bar decides nothing


@pytest.mark.parametrize("damage", ["cut short", "empty", "no note"])
def test_a_damaged_state_is_named(damage, knowing, facts, tmp_path, monkeypatch):
    interrupted(tmp_path, knowing, facts, monkeypatch)
    path = tmp_path / "state.safetensors"
    content = path.read_bytes()
    if damage == "no note":
        from safetensors.torch import save_file

        save_file(load_file(path), path)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"")
    with pytest.raises(UserError, match=r"state\.safetensors: cannot be read .*delete it to start the run again"):
        go("npo", knowing, facts, tmp_path)
    path.unlink()
    same(go("npo", knowing, facts, tmp_path), go("npo", knowing, facts, None))


def test_a_model_folder_left_by_an_interrupted_run_is_replaced(knowing, facts, tmp_path, monkeypatch):
    interrupted(tmp_path, knowing, facts, monkeypatch)
    for name in ("model", f"{UNFINISHED}abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half of it")
    (tmp_path / f"{UNFINISHED}def").write_bytes(b"half of it")
    result = go("npo", knowing, facts, tmp_path)
    same(result, go("npo", knowing, facts, None))
    assert rest(tmp_path) == {
        "run.json", "frame.parquet", "log.jsonl",
        *(f"model/{name}" for name in (
            "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        )),
    }  # fmt: skip


def test_a_finished_run_is_opened_and_computes_nothing(knowing, facts, tmp_path, monkeypatch):
    def run():
        options = OPTIONS | {"steps": 2, "trainable": ("value_vectors", "mlp_keys")}
        method = RefusalDPO(refusals=("red house",))
        return unlearn(knowing, method, facts.forget, facts.retain, run=tmp_path, **options)

    first = run()
    monkeypatch.setattr(stage.Stage, "run", None)
    monkeypatch.setattr(stage.Watch, "measure", None)
    same(run(), first)
    assert first.stages == (tmp_path / "model",)
    about = read_run(tmp_path)
    assert about["about"] == first.about
    assert about["settings"] == first.about["settings"] | {"model": about["settings"]["model"]}
    assert {"torch", "transformers", "mechunlearn"} <= set(about["versions"])


def test_stages_of_a_layered_run_can_be_dissected_from_their_folders(knowing, facts, tmp_path):
    result = go("layered", knowing, facts, tmp_path)
    assert result.stages == (tmp_path / "stages" / "1" / "model", tmp_path / "stages" / "2" / "model")
    frame = dissection.dissect(knowing, result.stages[0], facts.forget, sites=("value_vectors",)).frame
    assert len(frame)


def test_a_run_folder_that_is_none_is_refused(knowing, facts, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty, and not a run folder"):
        go("npo", knowing, facts, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "dissection"}))
    with pytest.raises(UserError, match="holds a run of kind 'dissection'"):
        go("npo", knowing, facts, tmp_path)
    shutil.rmtree(tmp_path)


def test_a_model_that_was_exchanged_is_refused_and_one_that_is_gone_is_made_again(knowing, facts, tmp_path, caplog):
    first = go("npo", knowing, facts, tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\0\0")
    for opens in (lambda: go("npo", knowing, facts, tmp_path), lambda: Unlearning.load(tmp_path)):
        with pytest.raises(UserError, match=r"model\.safetensors: was cut or changed since the run ended"):
            opens()
    shutil.rmtree(tmp_path / "model")
    same(go("npo", knowing, facts, tmp_path), first)
    assert "config.json: is missing; it is computed again" in caplog.text
    assert weights.read_bytes() == whole
    same(Unlearning.load(tmp_path), first)
