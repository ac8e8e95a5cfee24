"""What a stage trains and how: parameters, optimisers, precision, pieces, memory, collapse."""

import logging
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf, load, slots
from mechunlearn.sites import resolve
from mechunlearn.training import Phase, Settings
from mechunlearn.unlearning import NPO, CircuitBreakers, GradientAscent, GradientDifference, stage, unlearn, watch
from mechunlearn.unlearning.batches import Piece
from mechunlearn.unlearning.method import Method, Routine
from mechunlearn.unlearning.rows import asked, shown, spread
from mechunlearn.unlearning.step import Step

from ..architectures import NAMES, tiny
from .conftest import TEXT
from .test_budget import spied
from .test_resume import digest

QUICK = {"steps": 4, "learning_rate": 2e-3, "batch": 8, "evaluate_every": 2, "progress": False}


def run(model, facts, method: Method | None = None, **options):
    return unlearn(model, method or NPO(), facts.forget, facts.retain, **QUICK | options)


def close(one, other, **tolerance) -> None:
    for a, b in zip(hf(one).parameters(), hf(other).parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def moved(before, after) -> set[str]:
    pairs = zip(slots(before), slots(after), strict=True)
    return {old.name for old, new in pairs if not torch.equal(old.tensor, new.tensor)}


# What is trained


@pytest.mark.parametrize("name", NAMES)
def test_training_is_routed_to_sites_and_saved_on_every_architecture(name, knowing, facts, tmp_path):
    model = load(tiny(name), device="cpu", tokenizer=knowing.tokenizer)
    some = ("value_vectors", "attention", "embedding", r"\.1\.(mlp|attn)\.") if name in ("phi3", "gpt2") else ()
    for site in (*some, "mlp_keys"):
        folder = tmp_path / site if site in ("attention", "mlp_keys") else None
        result = run(model, facts, trainable=site, steps=1, evaluate_every=1, run=folder)
        assert moved(model, result.model) == {slot.name for slot in resolve(site, model).slots}
        if folder is not None:
            ids = torch.arange(3, 14)[None]
            plain = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
            with torch.no_grad():
                torch.testing.assert_close(plain(ids).logits, result.model(ids), rtol=1e-4, atol=1e-5)
            assert digest_of_slots(load(folder / "model", device="cpu")) == digest_of_slots(result.model)


def digest_of_slots(model) -> list[float]:
    return [float(slot.tensor.detach().double().sum()) for slot in slots(model)]


def test_several_sites_and_expressions_add_up(knowing, facts):
    result = run(knowing, facts, trainable=["value_vectors", r"layers\.0\.self_attn\.q_proj"])
    assert moved(knowing, result.model) == {
        "model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("no_such_thing", "site 'no_such_thing': no such site, and as a regular expression it matches no parameter"),
        ("[", "neither a site, a hook name nor a regular expression"),
        ("mlp_output", "trainable='mlp_output': only whole parameters can be trained; name a parameter site"),
        ("blocks.{l}.mlp.hook_post", "only whole parameters can be trained"),
        ("value_vectors[3]", "only whole parameters can be trained"),
        ([], "nothing to train: `trainable` is empty"),
        (["value_vectors", "nothing_here"], "nothing_here"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_is_written(knowing, facts, tmp_path, trainable, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[").replace("{", r"\{")):
        run(knowing, facts, trainable=trainable, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_adapters_and_trainable_exclude_each_other(knowing, facts):
    with pytest.raises(UserError, match=r"circuit_breakers trains adapters, so trainable=.* would do nothing"):
        run(knowing, facts, CircuitBreakers(), trainable="value_vectors")
    result = run(knowing, facts, CircuitBreakers(lora_rank=None), trainable="value_vectors")
    assert moved(knowing, result.model) == {slot.name for slot in resolve("value_vectors", knowing).slots}


def test_adapters_are_merged_and_gone(knowing, facts):
    result = run(knowing, facts, CircuitBreakers(lora_rank=2))
    names = [name for name, _ in hf(result.model).named_parameters()]
    assert names == [name for name, _ in hf(knowing).named_parameters()]
    changed = moved(knowing, result.model)
    assert changed
    assert all("proj" in name for name in changed)


def test_the_model_comes_out_as_it_went_in(knowing, facts):
    model = clone(knowing).train()
    hf(model).model.norm.weight.requires_grad_(False)
    before = digest(model)
    result = run(model, facts)
    assert digest(model) == before
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in hf(model).parameters())
    assert not hf(model).model.norm.weight.requires_grad
    assert all(p.grad is None and p.requires_grad for p in hf(result.model).parameters())
    close(result.model, run(knowing, facts).model)


# How it is trained


def test_one_step_is_the_formula_written_out(knowing, facts):
    """All eight forget rows and all ten retain rows in one step of plain descent, against a loss of its own."""
    retain = type(facts)([fact for fact in facts.retain if fact.id != "gustav"])  # 2 near, 2 far: eight rows
    result = unlearn(
        knowing, GradientDifference(forget_weight=0.7, retain_weight=1.3), facts.forget, retain,
        **QUICK | {"steps": 1, "optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1, "clip": None},
    )  # fmt: skip
    twin = clone(knowing)

    def cross_entropy(rows) -> Tensor:
        total, count = torch.zeros(()), 0
        for fact in rows:
            prompt, answer = (knowing.tokenizer(part)["input_ids"] for part in (fact.prompt, fact.answer))
            ids = torch.tensor([prompt + answer])
            scores = hf(twin)(input_ids=ids).logits[0].log_softmax(-1)
            for place in range(len(prompt), len(prompt) + len(answer)):
                total = total - scores[place - 1, ids[0, place]]
                count += 1
        return total / count

    loss = -0.7 * cross_entropy(spread(facts.forget, shown)) + 1.3 * cross_entropy(spread(retain, shown))
    loss.backward()
    with torch.no_grad():
        for parameter in hf(twin).parameters():
            parameter -= 0.1 * parameter.grad
    close(result.model, twin, rtol=1e-4, atol=1e-6)
    assert result.frame["loss"].iloc[-1] == pytest.approx(loss.item(), rel=1e-5)


def test_optimisers_differ_and_clipping_bounds_a_step(knowing, facts):
    found = {name: run(knowing, facts, optimizer=name, weight_decay=0.1).model for name in ("adamw", "adam", "sgd")}
    assert len({digest(model) for model in found.values()}) == 3
    options = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 10.0, "clip": 1e-4, "steps": 1}
    short = run(knowing, facts, GradientDifference(), **options).model
    squares = [(a - b).square().sum() for a, b in zip(hf(short).parameters(), hf(knowing).parameters(), strict=True)]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-2)


def test_bf16_keeps_masters_in_fp32(knowing, facts):
    fine = run(knowing, facts, precision="bf16", learning_rate=1e-5)
    weights = list(hf(fine.model).parameters())
    assert {parameter.dtype for parameter in weights} == {torch.float32}
    # Steps far below what bfloat16 could hold are not lost.
    change = torch.cat([(a - b).flatten() for a, b in zip(weights, hf(knowing).parameters(), strict=True)]).abs()
    assert 0 < change.max() < 1e-4
    coarse, exact = (run(knowing, facts, precision=precision) for precision in ("bf16", "no"))
    assert coarse.frame["loss"].iloc[1] != exact.frame["loss"].iloc[1]
    assert coarse.frame["loss"].iloc[1] == pytest.approx(exact.frame["loss"].iloc[1], rel=0.05)


def test_models_below_fp32_are_refused(knowing, facts):
    half = load(hf(clone(knowing)).bfloat16(), dtype="bfloat16", tokenizer=knowing.tokenizer, device="cpu")
    with pytest.raises(UserError, match=r"cannot train .* in torch\.bfloat16"):
        run(half, facts)


class Inside(Method):
    """Wants activations of the middle of a block and nothing behind them, and others with the logits."""

    name = "inside"
    paper = "none"

    def forget(self, step: Step) -> Tensor:
        hooks = ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_out"]
        near = step.see("forget", hooks, logits=False)
        whole = step.see("forget", ["blocks.0.hook_resid_post"])
        parts = [*(near.states[hook] for hook in hooks), whole.states["blocks.0.hook_resid_post"]]
        return sum((near.over_tokens(part.square().mean(-1)) for part in parts), -whole.cross_entropy)


@pytest.mark.parametrize("method", [NPO(retain="representation"), Inside(), CircuitBreakers()], ids=lambda m: m.name)
def test_checkpointing_changes_nothing(knowing, facts, method, monkeypatch):
    calls = 0
    original = torch.utils.checkpoint.checkpoint

    def counted(*arguments, **named):
        nonlocal calls
        calls += 1
        return original(*arguments, **named)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    plain = run(knowing, facts, method, retain_text=TEXT)
    assert calls == 0
    result = run(knowing, facts, method, retain_text=TEXT, checkpointing=True)
    assert calls > 0
    close(result.model, plain.model, rtol=1e-6, atol=1e-7)
    assert not hf(result.model).is_gradient_checkpointing


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "learning_rate": 0.02}], ids=["adamw", "sgd"])
def test_accumulation_changes_nothing(knowing, facts, options):
    whole = run(knowing, facts, retain_text=TEXT, **options)
    for count in (3, 8):
        split = run(knowing, facts, retain_text=TEXT, accumulation=count, **options)
        close(split.model, whole.model, rtol=1e-3, atol=2e-5)
        assert split.frame["tokens"].tolist() == whole.frame["tokens"].tolist()
        assert split.frame["loss"].tolist()[1:] == pytest.approx(whole.frame["loss"].tolist()[1:], rel=1e-3)


# When memory does not suffice


class Greedy(NPO):
    """Two updates a step, of which the second needs much memory; counts its steps as a method's own state."""

    limit = 3
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried …")

    @contextmanager
    def routine(self, model, start, parameters, settings, epoch):
        steps = torch.zeros(1)

        def forget(piece: Piece) -> dict[str, Tensor]:
            return {"loss": self.forget(Step(model, start, piece))}

        def retain(piece: Piece) -> dict[str, Tensor]:
            steps.add_(1)
            if len(piece.parts["retain"].tokens) > self.limit:
                raise self.error
            return {"loss": Step(model, start, piece).see("retain").cross_entropy}

        plain = Settings(settings.steps, 0.01, "sgd")
        phases = (Phase(forget, settings), Phase(retain, plain, name="retain_"))
        yield Routine(phases, state=lambda: {"steps": steps}, restore=lambda state: steps.copy_(state["steps"]))


class CudaGreedy(Greedy):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class Impossible(Greedy):
    limit = 0


class Broken(Greedy):
    error = RuntimeError("shapes do not fit")


@pytest.mark.parametrize("method", [Greedy(), CudaGreedy()], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("batch", "accumulation", "pieces"), [(8, 1, 4), (8, 2, 4), (7, 3, 6), (5, 1, 2)])
def test_out_of_memory_splits_the_step(knowing, facts, caplog, monkeypatch, method, batch, accumulation, pieces):
    monkeypatch.setattr(type(method), "limit", -(-batch // pieces))
    options = {"batch": batch, "accumulation": accumulation, "text": TEXT}
    with caplog.at_level(logging.WARNING):
        split = run(knowing, facts, method, **options)
    assert f"out of memory: from step 0 on, each step is split into {pieces} pieces" in caplog.text
    monkeypatch.setattr(type(method), "limit", 100)
    whole = run(knowing, facts, method, **options)
    close(split.model, whole.model, rtol=1e-3, atol=2e-5)
    assert split.frame["tokens"].tolist() == whole.frame["tokens"].tolist()
    assert split.frame["step"].tolist() == whole.frame["step"].tolist()
    assert split.frame["loss"].tolist()[1:] == pytest.approx(whole.frame["loss"].tolist()[1:], rel=1e-3)


def test_out_of_memory_in_the_middle_goes_on_from_the_last_evaluation(knowing, facts, monkeypatch, caplog):
    whole = run(knowing, facts, NPO(), steps=6)
    original, count = stage.Trainer._update, 0

    def update(self, place, pieces):
        nonlocal count
        count += 1
        if count == 4:
            original(self, place, pieces)  # the weights have moved, which must not be seen
            raise torch.OutOfMemoryError("out of memory")
        return original(self, place, pieces)

    monkeypatch.setattr(stage.Trainer, "_update", update)
    with caplog.at_level(logging.WARNING):
        result = run(knowing, facts, NPO(), steps=6)
    assert "from step 2 on, each step is split into 2 pieces" in caplog.text
    close(result.model, whole.model, rtol=1e-3, atol=2e-5)
    assert count == 6 + 2


def test_memory_that_never_suffices_is_an_error(knowing, facts):
    with pytest.raises(UserError, match="out of memory even with one row of each kind at a time: train fewer"):
        run(knowing, facts, Impossible())
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(knowing, facts, Broken())


def test_evaluation_takes_fewer_rows_where_memory_does_not_suffice(knowing, facts, monkeypatch, caplog):
    whole = run(knowing, facts, text=TEXT)
    original = watch.score_answers

    def score(model, tokens, size):
        if size > 4:
            raise torch.OutOfMemoryError("out of memory")
        return original(model, tokens, size)

    monkeypatch.setattr(watch, "score_answers", score)
    result = run(knowing, facts, text=TEXT)
    assert "evaluating 4 rows at a time" in caplog.text
    assert digest(result.model) == digest(whole.model)
    columns = [name for name in whole.frame if name != "seconds"]
    for name in columns:
        assert result.frame[name].tolist() == pytest.approx(whole.frame[name].tolist(), abs=1e-5, nan_ok=True)


# When the model breaks down


class Sudden(GradientAscent):
    """Gives NaN from half of the run on."""

    def forget(self, step: Step) -> Tensor:
        return super().forget(step) * (float("nan") if step.progress >= 0.5 else 1.0)


def test_a_loss_that_is_nan_sends_the_run_back_and_is_named(knowing, facts, monkeypatch, caplog, tmp_path):
    accepted = spied(monkeypatch)
    options = {"steps": 10, "evaluate_every": 3, "learning_rate": 1e-4, "run": tmp_path}
    result = run(knowing, facts, Sudden(), **options)
    assert result.about["stopped"].startswith("collapsed: the loss is not finite at step 6 of 10")
    assert result.about["stopped"].endswith("; back to step 3")
    assert result.about["step"] == 3
    assert digest(result.model) == accepted[-1][1]
    assert result.frame["step"].tolist() == [0, 3]
    assert "gradient_ascent collapsed (the loss is not finite at step 6" in caplog.text
    assert digest(run(knowing, facts, Sudden(), **options).model) == digest(result.model)


def test_weights_that_overflow_are_a_collapse_too(knowing, facts):
    """The loss of the step is finite, and what it leads to is not."""
    for every in (1, 4):
        options = {"optimizer": "sgd", "learning_rate": 1e38, "clip": None, "evaluate_every": every}
        result = run(knowing, facts, GradientDifference(), text=TEXT, **options)
        assert result.about["stopped"].startswith("collapsed: ")
        assert result.about["stopped"].endswith("back to step 0")
        assert digest(result.model) == digest(knowing)


def test_retain_recall_that_is_gone_is_a_collapse(knowing, facts, monkeypatch):
    accepted = spied(monkeypatch)
    result = run(knowing, facts, GradientAscent(), steps=200, learning_rate=5e-3, schedule="constant")
    assert result.about["stopped"].startswith("collapsed: recall on ")
    step, weights = accepted[-1]
    assert result.about["step"] == step < result.frame["step"].iloc[-1]
    assert digest(result.model) == weights
    assert result.frame["inside"].tolist() == [True] * (len(result.frame) - 1) + [False]


def test_entropy_that_jumps_is_a_collapse(knowing, facts):
    """All predictions are drawn towards the uniform one, and recall on the retain facts stays as it is."""

    class Flat(Method):
        name = "flat"
        paper = "none"

        def forget(self, step: Step) -> Tensor:
            return step.see("text").scored.log_softmax(-1).mean(-1).neg().mean()

    options = {"steps": 200, "learning_rate": 5e-3, "text": TEXT, "retain_text": TEXT}
    result = run(knowing, facts, Flat(text_weight=0.0), **options)
    assert result.about["stopped"].startswith("collapsed: entropy of predictions on general text went from ")
    assert result.frame["near_recall"].iloc[-1] > 0.1


# Small things


def test_evaluations_at_the_start_at_the_end_and_between(knowing, facts):
    assert run(knowing, facts, steps=3, evaluate_every=50).frame["step"].tolist() == [0, 3]
    assert run(knowing, facts, steps=7, evaluate_every=3).frame["step"].tolist() == [0, 3, 6, 7]
    assert run(knowing, facts, steps=1, evaluate_every=1).frame["step"].tolist() == [0, 1]


def test_a_forget_set_of_one_fact(knowing, facts):
    one = type(facts)([facts.forget[0]])
    result = unlearn(knowing, NPO(), one, facts.retain, **QUICK | {"steps": 60, "learning_rate": 6e-3})
    assert result.frame["forget_recall"].iloc[-1] == 0
    assert len(spread(one, asked)) == 1


def test_parameters_lists_what_the_optimiser_gets(knowing):
    from mechunlearn.unlearning.options import Options

    chosen = Options(trainable=("mlp_keys", "mlp_keys", r"gate_proj")).parameters(NPO(), knowing)
    assert len(chosen) == 4
    assert all(isinstance(parameter, nn.Parameter) for parameter in chosen)
