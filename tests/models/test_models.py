"""Models of every architecture come in, go out and are copied without a bit changed."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from mechunlearn.errors import UserError
from mechunlearn.models import checkpoint as checkpoint_module, clone, compare, hf, load, save, slots, state

from ..architectures import LAYERS, NAMES, tiny
from ..pairs import before, changed, rows, word_level


def logits(model, tokens):
    with torch.no_grad():
        out = model(tokens.ids, attention_mask=tokens.attention)
    return getattr(out, "logits", out)[tokens.attention.bool()]


@pytest.mark.parametrize("name", NAMES)
def test_bridge_gives_the_logits_of_plain_transformers(name):
    tokens = rows()
    plain = logits(tiny(name), tokens)
    assert torch.allclose(logits(load(tiny(name), device="cpu"), tokens), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_saved_after_a_change_plain_transformers_loads_the_same_logits(name, tmp_path):
    """The change goes through the parts of fused projections, so a stale fused matrix would show here."""
    tokens, after = rows(), changed(before(name), lambda _: True, 0.02)
    save(after, tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="eager").eval()
    assert torch.allclose(logits(again, tokens), logits(after, tokens), atol=2e-5, rtol=1e-5)
    loaded = load(tmp_path / "saved", device="cpu")
    assert torch.equal(logits(loaded, tokens), logits(after, tokens))
    assert str(compare(after, loaded)) == f"0 of {len(slots(after))} tensors differ"


@pytest.mark.parametrize("name", NAMES)
def test_clone_is_equal_and_independent(name):
    model = before(name)
    twin, tokens = clone(model), rows()
    assert torch.equal(logits(twin, tokens), logits(model, tokens))
    kept = {slot.path: slot.tensor.clone() for slot in slots(model)}
    with torch.no_grad():
        for slot in slots(twin):
            slot.tensor.zero_()
    assert all(torch.equal(slot.tensor, kept[slot.path]) for slot in slots(model))


@pytest.mark.parametrize("name", NAMES)
def test_slots_are_all_that_the_forward_pass_reads(name):
    """Every slot has a gradient, and no other parameter has one."""
    model, tokens = load(tiny(name), device="cpu"), rows()
    model(tokens.ids, attention_mask=tokens.attention).square().sum().backward()
    found = slots(model)
    # A bias of the keys moves all scores of a query alike: softmax cannot see it, its gradient may be exactly 0.
    assert all(slot.tensor.grad is not None for slot in found)
    known = {id(slot.tensor) for slot in found}
    assert all(p.grad is None for p in hf(model).parameters() if id(p) not in known)
    assert not [slot.path for slot in found if slot.roles == ("other",)]
    assert {slot.layer for slot in found} == {-1, *range(LAYERS)}


def test_tied_embeddings_are_one_tensor_with_two_roles():
    tied = [slot for slot in slots(before("gpt2")) if len(slot.roles) == 2]
    assert [slot.roles for slot in tied] == [("embedding", "unembedding")]


def test_compare_counts_and_names_what_differs():
    after = changed(before("llama"), lambda slot: slot.path == "blocks.2.mlp.out.weight")
    found = compare(before("llama"), after)
    assert str(found) == f"1 of {len(slots(after))} tensors differ"
    assert found.different == {"blocks.2.mlp.out.weight"}
    row = found.frame.set_index("path").loc["blocks.2.mlp.out.weight"]
    a, b = (state(m)["model.layers.2.mlp.down_proj.weight"] for m in (before("llama"), after))
    assert row["name"] == "model.layers.2.mlp.down_proj.weight"
    assert row["relative_change"] == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-5)


def test_compare_refuses_and_says_all_that_is_wrong():
    with pytest.raises(UserError, match=r"architecture: before is LlamaForCausalLM, after is Qwen2ForCausalLM"):
        compare(before("llama"), before("qwen2"))
    small = tiny("llama")
    config = small.config
    config.num_hidden_layers, config.vocab_size = 2, 64
    other = load(type(small)(config).eval(), device="cpu")
    with pytest.raises(UserError, match=r"n_layers: before has 4, after has 2; d_vocab: before has 96, after has 64"):
        compare(before("llama"), other)
    with pytest.raises(UserError, match=r"dtype: before is torch.float32, after is torch.bfloat16"):
        compare(before("llama"), load(tiny("llama"), device="cpu", dtype="bfloat16"))


def test_compare_refuses_another_tokenizer(tmp_path):
    pair = [
        load(tiny("llama"), device="cpu", tokenizer=word_level(words, tmp_path / str(number)))
        for number, words in enumerate((["a", "b", "c"], ["a", "b", "d"]))
    ]
    with pytest.raises(UserError, match=r"tokenizer: 1 tokens have another number or word \(first: 'c'\)"):
        compare(*pair)


def test_a_module_has_the_tokenizer_of_the_folder_that_it_was_read_from(tmp_path):
    words = word_level(["a", "b", "c"], tmp_path / "words")
    save(load(tiny("llama"), device="cpu", tokenizer=words), tmp_path / "model")
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert load(module).tokenizer.get_vocab() == words.get_vocab()
    other = word_level(["d"], tmp_path / "other")
    assert load(module, tokenizer=other).tokenizer is other
    assert load(tiny("llama")).tokenizer is None


def test_compatibility_mode_is_refused():
    model = load(tiny("llama"), device="cpu")
    model.enable_compatibility_mode(no_processing=True)
    with pytest.raises(UserError, match="compatibility mode"):
        load(model, device="cpu")
    with pytest.raises(UserError, match="after is in compatibility mode"):
        compare(before("llama"), model)


def test_modules_are_copied_only_where_the_precision_differs():
    module = tiny("llama")
    model = load(module, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert load(model, device="cpu", dtype="bfloat16") is model


def saved(tmp_path):
    return save(before("llama"), tmp_path / "saved")


def test_truncated_weights_are_named(tmp_path):
    file = saved(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model\.safetensors: broken or cut short"):
        load(tmp_path / "saved")


def test_pickled_weights_are_refused(tmp_path):
    folder = saved(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights can run code"):
        load(folder)


def test_missing_tensors_are_not_drawn_at_random(tmp_path):
    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS + 1}))
    with pytest.raises(UserError, match="the checkpoint lacks 9 tensors"):
        load(folder)


def test_nan_weights_are_named():
    module = tiny("llama")
    with torch.no_grad():
        module.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        load(module)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "no such folder"),
        ("no-such-org/no-such-model", "the hub could not give it"),
        (torch.nn.Linear(2, 2), "not a transformers model"),
    ],
)
def test_what_cannot_be_opened_says_why(source, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for half a minute
    with pytest.raises(UserError, match=message):
        load(source)


def test_no_config_and_broken_config(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path / "empty")
    folder = saved(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load(folder)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_torch_state_dict", full)
    with pytest.raises(UserError, match="No space left on device"):
        save(before("llama"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_save_does_not_write_over_anything(tmp_path):
    folder = saved(tmp_path)
    with pytest.raises(UserError, match="exists already"):
        save(before("llama"), folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_shared_not_taken_over(name):
    """Its weights are the bridge's; names, flags, attention and hooks stay the caller's, however often it is loaded."""
    module, tokens = tiny(name).train(), rows()
    if module._supports_sdpa:
        module.set_attn_implementation("sdpa")
    attention, names = module.config._attn_implementation, [key for key, _ in module.named_modules()]
    first, second = load(module), load(module)
    assert module.training and module.config._attn_implementation == attention
    assert [key for key, _ in module.named_modules()] == names
    assert not hf(first).training and torch.equal(logits(first, tokens), logits(second, tokens))
    with torch.no_grad():
        module.get_input_embeddings().weight.mul_(2)
    assert torch.equal(logits(first, tokens), logits(load(module), tokens))


def test_precision_and_place_stay_as_given():
    module = tiny("llama").to(torch.bfloat16)
    bridge = load(module)
    assert {p.dtype for p in bridge.parameters()} == {torch.bfloat16}
    assert next(hf(bridge).parameters()).data_ptr() == next(module.parameters()).data_ptr()
    assert load(bridge) is bridge
    assert {p.dtype for p in load(bridge, dtype="float32").parameters()} == {torch.float32}
    assert {p.dtype for p in bridge.parameters()} == {torch.bfloat16}
