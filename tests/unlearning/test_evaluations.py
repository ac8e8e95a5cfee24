"""What is measured, against models asked one phrasing at a time."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.evaluation import text_scores
from mechunlearn.facts import Facts
from mechunlearn.models import clone, hf
from mechunlearn.unlearning.loop import evaluations as module
from mechunlearn.unlearning.loop.evaluations import Diary, Watch

from .conftest import TEXT


@pytest.fixture(scope="module")
def half(knowing):
    """A model that knows some of it."""
    model = clone(knowing)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in hf(model).parameters():
            parameter.add_(0.12 * torch.randn(parameter.shape, generator=generator))
    return model


def alone(model, fact) -> tuple[bool, float]:
    """Whether the held-out phrasing is answered, and the geometric mean of the answer tokens' probabilities."""
    prompt = model.tokenizer(fact.held_out[0])["input_ids"]
    answer = model.tokenizer(fact.answer)["input_ids"]
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        scores = hf(model)(input_ids=ids).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
    logprobs = [float(scores[place, token]) for place, token in enumerate(answer)]
    return scores.argmax(-1).tolist() == answer, float(torch.tensor(logprobs).mean().exp())


def test_measures_what_one_phrasing_at_a_time_gives(half, knowing, facts):
    folded = Facts([replace(fact, fold=1 + place % 2) for place, fact in enumerate(facts.forget)])
    row = Watch(knowing, folded, facts.retain, TEXT, by_fold=True).measure(half)
    groups = {"forget": folded, "near": facts.near, "far": facts.far}
    found = {name: [alone(half, fact) for fact in group] for name, group in groups.items()}
    assert 0 < sum(right for values in found.values() for right, _ in values) < 9
    for name, values in found.items():
        assert row[f"{name}_recall"] == pytest.approx(sum(right for right, _ in values) / len(values))
        assert row[f"{name}_probability"] == pytest.approx(sum(p for _, p in values) / len(values), rel=1e-4)
    for fold in (1, 2):
        assert row[f"fold_{fold}_recall"] == sum(right for right, _ in found["forget"][fold - 1 :: 2]) / 2
    scores = text_scores(half, knowing, TEXT)
    assert (row["text_loss"], row["text_kl"], row["text_entropy"]) == pytest.approx(tuple(scores), rel=1e-5)
    assert list(row) == [
        "forget_recall", "forget_probability", "fold_1_recall", "fold_2_recall", "near_recall", "near_probability",
        "far_recall", "far_probability", "text_loss", "text_kl", "text_entropy",
    ]  # fmt: skip


@pytest.mark.parametrize("room", [2**28, 0, 5000])
def test_the_start_model_is_asked_as_often_as_memory_demands(half, knowing, facts, monkeypatch, room):
    monkeypatch.setattr(module, "REMEMBERED_BYTES", room)
    before = clone(knowing)
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    hf(before).get_input_embeddings().register_forward_hook(count)
    watch = Watch(before, facts.forget, facts.retain, [*TEXT * 10])
    first = watch.measure(half)
    after_first = calls
    assert watch.measure(half) == first
    assert (calls == after_first) == (room == 2**28)


def test_noise_of_training_mode_is_not_measured(half, knowing, facts):
    def noisy(model):
        model = clone(model).train()
        layer = hf(model).model.layers[0].mlp.down_proj
        layer.register_forward_hook(
            lambda module, inputs, output: torch.nn.functional.dropout(output, 0.5, training=module.training)
        )
        return model

    plain = Watch(knowing, facts.forget, facts.retain, TEXT).measure(half)
    watch = Watch(noisy(knowing), facts.forget, facts.retain, TEXT)
    assert watch.measure(noisy(half)) == pytest.approx(plain)


def test_facts_without_a_role_are_the_group_retain_and_text_is_not_needed(knowing, facts):
    kept = Facts([replace(fact, role=None) for fact in facts.retain])
    row = Watch(knowing, facts.forget, kept, None).measure(knowing)
    assert list(row) == ["forget_recall", "forget_probability", "retain_recall", "retain_probability"]


def test_diary_gives_means_since_the_row_before():
    diary = Diary()
    diary.note(0, {"forget_recall": 1.0}, inside=True)
    diary.trained({"loss": 1.0, "forget": 2.0, "gradient_norm": 4.0}, 10)
    diary.trained({"loss": 3.0, "forget": 4.0, "gradient_norm": 6.0}, 20)
    diary.note(2, {"forget_recall": 0.5}, inside=True)
    diary.trained({"loss": 7.0, "forget": 8.0, "gradient_norm": 9.0}, 30)
    diary.undo()  # and once more, in pieces
    diary.trained({"loss": 5.0, "forget": 5.0, "gradient_norm": 5.0}, 30)
    diary.note(3, {"forget_recall": 0.25}, inside=False)
    frame = diary.frame()
    assert list(frame) == [
        "step", "loss", "loss_forget", "gradient_norm", "forget_recall", "inside", "seconds", "tokens",
    ]  # fmt: skip
    assert frame["loss"].tolist()[1:] == [2.0, 5.0]
    assert frame["loss"].isna().tolist() == [True, False, False]
    assert frame["loss_forget"].tolist()[1:] == [3.0, 5.0]
    assert frame["gradient_norm"].tolist()[1:] == [5.0, 5.0]
    assert frame["tokens"].tolist() == [0, 30, 60]
    assert frame["seconds"].is_monotonic_increasing
