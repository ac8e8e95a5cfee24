"""What a run trains: sites, expressions, adapters; and what it leaves alone."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf, load, slots
from mechunlearn.sites import resolve
from mechunlearn.unlearning import NPO, CircuitBreakers

from ..architectures import NAMES, tiny
from .stages import close, moved, run
from .test_resume import digest


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


def test_parameters_lists_what_the_optimiser_gets(knowing):
    from mechunlearn.unlearning.options import Options

    chosen = Options(trainable=("mlp_keys", "mlp_keys", r"gate_proj")).parameters(NPO(), knowing)
    assert len(chosen) == 4
    assert all(isinstance(parameter, nn.Parameter) for parameter in chosen)
