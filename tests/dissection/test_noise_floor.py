"""The floor of definedness: its size, its margin and its control row, by cases just above and just below."""

import numpy as np
import pytest
import torch

from mechunlearn import Fact, Facts, dissect
from mechunlearn.dissection.metrics import METRICS
from mechunlearn.dissection.patches import Patcher
from mechunlearn.facts import tokenize
from mechunlearn.models import clone, hf, load, slots

from ..architectures import tiny
from ..pairs import word_level

FACTS = Facts([Fact("w5 w6 w7", "w8"), Fact("w15 w16", "w17 w18"), Fact("w25 w26 w27 w28", "w29")])
OPTIONS = {"sites": "value_vectors", "windows": "single", "progress": False}
MARGIN = {"squared": 1e4, "linear": 1e2}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path_factory.mktemp("words"))
    return load(tiny("llama"), tokenizer=words)


def moved(model, scale):
    """A copy whose value vectors of one block are moved so far."""
    after = clone(model)
    [slot] = [slot for slot in slots(after) if slot.path == "blocks.2.mlp.out.weight"]
    with torch.no_grad():
        slot.tensor.add_(scale * torch.randn(slot.tensor.shape, generator=torch.Generator().manual_seed(1)))
    return after


@torch.no_grad()
def expected(model):
    """Margin times the rounding of logits of this size in float32, by plain passes."""
    tokens = tokenize(FACTS, model.tokenizer)
    said = hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention).logits[tokens.predicts].double()
    step = torch.finfo(torch.float32).eps * float(said.square().mean().sqrt())
    return {name: MARGIN[m.noise] * (step**2 if m.noise == "squared" else step) for name, m in METRICS.items()}


def test_the_floor_is_its_margin_times_the_rounding_where_the_control_row_is_still(before, monkeypatch):
    still(monkeypatch, 0.0)
    assert dissect(before, moved(before, 0.1), FACTS, **OPTIONS).about["noise_floor"] == pytest.approx(expected(before))


def still(monkeypatch, off):
    """The control row is the recipient itself, but for one logit in a hundred, which is off by so much."""
    real = Patcher.run

    def run(self, arms, passes, *, control=False):
        logits, row = real(self, arms, passes, control=control)
        if row is not None:
            row = passes.plain[passes.facts == 0].clone()
            row[:, 7] += off
        return logits, row

    monkeypatch.setattr(Patcher, "run", run)


def test_what_a_row_moves_for_no_reason_raises_the_floor(before, monkeypatch):
    still(monkeypatch, 0.02)
    floor = dissect(before, moved(before, 0.1), FACTS, **OPTIONS).about["noise_floor"]
    assert floor["mse"] == pytest.approx(1e4 * 0.02**2 / 96, rel=1e-3)
    assert floor["mse_centred"] == pytest.approx(1e4 * 0.02**2 / 96 * (1 - 1 / 96), rel=1e-3)


@pytest.mark.parametrize("metric", ["mse", "answer_logprob"])
@pytest.mark.parametrize(("times", "defined"), [(1.3, True), (0.7, False)])
def test_a_change_just_above_the_floor_is_defined_and_one_just_below_is_not(
    before, metric, times, defined, monkeypatch
):
    still(monkeypatch, 0.02 if metric == "mse" else 1e-4)  # well above rounding, so that a change can be planted
    probe = 1e-3
    found = dissect(before, moved(before, probe), FACTS[:1], **OPTIONS)
    rows = found.frame[found.frame["metric"] == metric]
    floor, baseline = found.about["noise_floor"][metric], float(rows["baseline"].iloc[0])
    power = 2 if METRICS[metric].noise == "squared" else 1
    scale = probe * (times * floor / baseline) ** (1 / power)
    again = dissect(before, moved(before, scale), FACTS[:1], **OPTIONS)
    rows = again.frame[again.frame["metric"] == metric]
    reached = float(rows["baseline"].iloc[0]) / again.about["noise_floor"][metric]
    assert reached == pytest.approx(times, rel=0.2)
    assert set(rows["defined"]) == {defined}
    assert np.isnan(rows["recovery"]).all() != defined
    assert any("undefined" in note and "computed in float32" in note for note in again.about["notes"]) or defined


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_clear_change_is_defined_over_weights_in_half_precision(before, dtype):
    after = moved(before, 0.1)
    found = dissect(load(before, dtype=dtype), load(after, dtype=dtype), FACTS, **OPTIONS)
    assert found.frame["defined"].all()
    planted = found.frame[(found.frame["metric"] == "mse") & (found.frame["first_layer"] == 2)]
    assert planted["recovery"].tolist() == pytest.approx([1.0] * 3, abs=1e-4)


def test_the_precision_is_named_where_a_row_is_undefined(before):
    half = load(before, dtype="bfloat16")
    found = dissect(half, clone(half), FACTS, **OPTIONS)
    assert not found.frame["defined"].any()
    assert "3 of 3 facts are undefined" in str(found) and "computed in float32 over bfloat16 weights" in str(found)
