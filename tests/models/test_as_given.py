"""A model is what was given: its tokenizer, its adapters, every tensor of its checkpoint, its logits."""

import gc
import json
import re

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import processors
from torch import nn
from transformers import AutoModelForCausalLM

from mechunlearn import Fact, Facts, dissect
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize
from mechunlearn.models import clone, compare, conformance, hf, load, matched, save, slots
from mechunlearn.unlearning import NPO, unlearn

from ..architectures import CONFIGS, ODD, tiny
from ..pairs import word_level

WORDS = [f"w{i}" for i in range(3, 96)]
FACTS = Facts([Fact("w5 w6 w7", "w8"), Fact("w15 w16", "w17 w18"), Fact("w25 w26", "w29")])
IDS = torch.arange(3, 20)[None]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return word_level(WORDS, tmp_path_factory.mktemp("words"))


def logits(model):
    module = model if isinstance(model, nn.Module) and not hasattr(model, "original_model") else hf(model)
    with torch.no_grad():
        return module(input_ids=IDS, use_cache=False).logits


def edit(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# Tokenizers.


def test_a_bridge_of_another_precision_keeps_its_tokenizer(words):
    half = load(tiny("llama"), tokenizer=words, dtype="bfloat16")
    for model in (half, load(half, dtype="float32"), clone(half), load(half, device="cpu")):
        assert tokenize(FACTS, model.tokenizer).ids.tolist() == tokenize(FACTS, words).ids.tolist()
        assert model.cfg.tokenizer_prepends_bos is False
        assert model.tokenizer.padding_side == words.padding_side


def test_a_bridge_takes_another_tokenizer_as_it_is(words, tmp_path):
    other = word_level(WORDS[::-1], tmp_path)
    model = load(load(tiny("llama"), tokenizer=words), tokenizer=other)
    assert tokenize(FACTS, model.tokenizer).ids.tolist() == tokenize(FACTS, other).ids.tolist()


# Wrapping.


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_wrapping_that_changes_a_logit_is_refused(name, monkeypatch):
    load(tiny(name))
    said = conformance._said
    calls = []

    def spoiled(module):
        calls.append(module)
        moved = 1e-4 if len(calls) == 3 else 0.0  # plain, rounded, wrapped
        return said(module) * (1 + moved)

    monkeypatch.setattr(conformance, "_said", spoiled)
    with pytest.raises(UserError, match=r"wrapping of .* changes what the model says: a logit is off by"):
        load(tiny(name))


def test_an_architecture_that_wrapping_spoils_is_named():
    """GPT-1, as TransformerLens wraps it today: either right, or refused."""
    import transformers as library

    torch.manual_seed(0)
    config = library.OpenAIGPTConfig(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain = logits(module)
    try:
        wrapped = load(module)
    except UserError as error:
        assert "OpenAIGPTLMHeadModel" in str(error)
    else:
        torch.testing.assert_close(logits(wrapped), plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_tolerance_is_what_rounding_does(dtype):
    few = conformance.few_logits(load(tiny("llama"), dtype=dtype).original_model)
    step = torch.finfo(few.logits.dtype).eps * float(few.logits.abs().max())
    assert step <= few.noise <= 100 * step


# Checkpoints.


def test_tensors_without_a_place_are_named(tmp_path):
    biased = tiny("qwen2")
    biased.save_pretrained(tmp_path / "biases")
    edit(tmp_path / "biases", architectures=["LlamaForCausalLM"], model_type="llama")
    with pytest.raises(
        UserError, match=r"12 tensors .* no place in LlamaForCausalLM \(first: model.layers.0.self_attn"
    ):
        load(tmp_path / "biases")
    tiny("llama").save_pretrained(tmp_path / "layers")
    edit(tmp_path / "layers", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"18 tensors .* no place .*first: model.layers.2.input_layernorm.weight"):
        load(tmp_path / "layers")


@pytest.mark.parametrize("shards", ["10GB", "20KB"])
def test_an_unmerged_adapter_among_the_tensors_is_named(tmp_path, shards):
    tiny("llama").save_pretrained(tmp_path, max_shard_size=shards)
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(load_file(file) | {name: torch.ones(4, 32)}, file, metadata={"format": "pt"})
    index = tmp_path / "model.safetensors.index.json"
    if index.exists():
        held = json.loads(index.read_text())
        held["weight_map"][name] = file.name
        index.write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"1 tensors .*first: model.layers.0.self_attn.q_proj.lora_A.weight.*merge it"):
        load(tmp_path)


@pytest.mark.parametrize(("prefix", "origin"), [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")])
def test_prefixes_of_wrappers_are_named(tmp_path, prefix, origin):
    tiny("llama").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"named {prefix}… as {origin}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        ("gpt2", {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}),
        ("neox", {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}),
    ],
)
def test_tensors_that_old_versions_left_behind_pass(tmp_path, name, extra):
    tiny(name).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    assert torch.equal(logits(load(tmp_path)), logits(load(tiny(name))))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors"])
def test_a_quantised_checkpoint_says_so(tmp_path, method):
    tiny("llama").save_pretrained(tmp_path)
    more = {"bitsandbytes": {"load_in_8bit": True}, "gptq": {"bits": 4}, "awq": {"bits": 4, "group_size": 128}}
    more["compressed-tensors"] = {"format": "int-quantized"}
    edit(tmp_path, quantization_config={"quant_method": method} | more[method])
    with pytest.raises(UserError, match=rf"quantised \({method}\).*as it was before quantisation"):
        load(tmp_path)


def test_weights_that_are_no_numbers_are_refused():
    module = tiny("llama")
    weight = module.model.layers[1].mlp.down_proj.weight
    module.model.layers[1].mlp.down_proj.weight = nn.Parameter(weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"down_proj.weight is quantised \(int8\)"):
        load(module)


# Adapters.

KINDS = {
    "lora": LoraConfig(target_modules=["q_proj", "down_proj"], r=4, lora_alpha=32, init_lora_weights=False),
    "dora": LoraConfig(target_modules=["v_proj"], r=4, lora_alpha=32, init_lora_weights=False, use_dora=True),
    "embedding": LoraConfig(target_modules=["embed_tokens", "o_proj"], r=4, lora_alpha=32, init_lora_weights=False),
    "whole modules": LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False),
}


def adapted(kind, folder):
    """The base and an adapter on the disk, and what the two say together."""
    tiny("llama").save_pretrained(folder / "base")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base"), KINDS[kind])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "ia3" not in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
            elif parameter.requires_grad:
                parameter.mul_(1.3)
    model.save_pretrained(folder / "adapter")
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_refused_by_name_or_merged_on_request(kind, words, tmp_path):
    tuned = adapted(kind, tmp_path)
    want, plain = logits(tuned), logits(load(tmp_path / "base"))
    assert (want - plain).abs().max() > 0.05
    inside = tuned.base_model.model
    with pytest.raises(UserError, match=r"adapter layers beside its weights \(first: .*merge=True"):
        load(inside)
    with pytest.raises(UserError, match=r"an adapter for .*base; load\(…, merge=True\)"):
        load(tmp_path / "adapter")
    with pytest.raises(UserError, match=r"not a transformers model.*merge=True"):
        load(tuned)
    for source in (tuned, inside, tmp_path / "adapter"):
        model = load(source, tokenizer=words, merge=True)
        torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits(clone(model)), want, rtol=1e-4, atol=1e-4)
    save(model, tmp_path / "saved")
    torch.testing.assert_close(logits(load(tmp_path / "saved")), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(tuned), want)  # the owner's model is as it was
    kept = Facts([Fact("w35 w36", "w37", id="kept")])
    run = unlearn(model, NPO(), FACTS, kept, steps=1, learning_rate=1e-12, batch_size=2, progress=False)
    torch.testing.assert_close(logits(run.model), want, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_a_tied_head_changes_the_head_alone(tmp_path):
    module = tiny("gpt2")
    config = LoraConfig(target_modules=["lm_head"], r=4, lora_alpha=32, init_lora_weights=False)
    tuned = get_peft_model(module, config).eval()
    want = logits(tuned)
    model = load(tuned, merge=True)
    torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-4)
    save(model, tmp_path / "saved")
    torch.testing.assert_close(logits(load(tmp_path / "saved")), want, rtol=1e-4, atol=1e-4)


def test_prompt_tuning_is_no_change_of_weights():
    tuned = get_peft_model(tiny("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(UserError, match="puts tokens before the text and changes no weights"):
        load(tuned, merge=True)


def test_adapters_that_are_put_in_later_are_not_lost_in_silence(words, tmp_path):
    from peft import inject_adapter_in_model

    model = load(tiny("llama"), tokenizer=words)
    inject_adapter_in_model(LoraConfig(target_modules=r".*q_proj\._original_component"), hf(model))
    for verb in (clone, lambda it: save(it, tmp_path / "saved")):
        with pytest.raises(UserError, match="adapter layers beside its weights"):
            verb(model)


# Pairs.


def tied_pair(words):
    """Before ties embedding and unembedding; after has two, and another unembedding."""
    module = tiny("llama")
    module.config.tie_word_embeddings = True
    module.lm_head.weight = module.model.embed_tokens.weight
    before = load(module, tokenizer=words)
    other = tiny("llama")
    other.lm_head.weight = nn.Parameter(other.model.embed_tokens.weight.detach() * 1.5)
    return before, load(other, tokenizer=words)


def test_tied_before_and_untied_after_are_compared_as_two_matrices(words):
    before, after = tied_pair(words)
    said = logits(before)
    found = compare(before, after)
    assert found.frame.loc[found.frame["differs"], "role"].tolist() == ["unembedding"]
    assert "compared as two" in str(found)
    sites = ["embedding", "unembedding", "value_vectors"]
    result = dissect(before, after, FACTS, sites=sites, windows="all", progress=False)
    recovered = result.frame[result.frame["metric"] == "mse"].groupby("site", observed=True)["recovery"].mean()
    assert recovered.to_dict() == pytest.approx({"embedding": 0, "unembedding": 1, "value_vectors": 0}, abs=1e-5)
    assert result.controls["passed"].dropna().all()
    assert "Mind: embedding and unembedding are one matrix in one model only" in str(result)
    assert torch.equal(logits(before), said) and len([s for s in slots(before) if len(s.roles) == 2]) == 1
    for one, two in (matched(before, after), matched(after, before)):
        assert [s.path for s in slots(one)] == [s.path for s in slots(two)]


def test_parameters_that_only_one_model_has_are_named():
    with_bias = tiny("llama")
    with_bias.config.mlp_bias = True
    with_bias = type(with_bias)(with_bias.config).eval()
    with pytest.raises(
        UserError, match=r"first: model.layers.0.mlp.gate_proj.bias: before has none, after has \(48,\)"
    ):
        compare(load(tiny("llama")), load(with_bias))


def ends_with_eos(words, folder):
    words = word_level(WORDS, folder)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    return words


def with_a_token_more(words, folder):
    words = word_level(WORDS, folder)
    words.add_special_tokens({"additional_special_tokens": ["[PAD]"]})
    return words


@pytest.mark.parametrize(
    ("other", "note"),
    [
        (ends_with_eos, "the tokenizers make other tokens of the same text"),
        (with_a_token_more, r"the tokenizer of after alone has 1 tokens more \(first: '\[PAD\]'\)"),
    ],
)
def test_tokenizers_that_differ_without_harm_are_said(words, tmp_path, other, note):
    before = load(tiny("llama"), tokenizer=words)
    after = load(tiny("llama", 1), tokenizer=other(words, tmp_path / "other"))
    found = [
        dissect(before, after, FACTS, windows="all", tokenizer=whose, progress=False) for whose in ("before", "after")
    ]
    plain = dissect(before, load(tiny("llama", 1), tokenizer=words), FACTS, windows="all", progress=False)
    for result in found:
        assert any(re.search(note, said) for said in result.about["notes"])
    assert found[0].frame["recovery"].equals(plain.frame["recovery"])
    with pytest.raises(UserError, match="whose is to be used, before or after"):
        dissect(before, after, FACTS, tokenizer="mine", progress=False)


# Memory.


def storages():
    """Bytes of every tensor's storage that is alive on the CPU, by its address."""
    gc.collect()
    alive = (tensor for tensor in gc.get_objects() if type(tensor) in (torch.Tensor, nn.Parameter))
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive if t.device.type == "cpu"}


def test_a_copy_never_holds_a_third_model(words, monkeypatch):
    """What is alive besides what was before, whenever a tensor of the copy has been made: at most one model."""
    model = load(tiny("llama"), tokenizer=words)
    own = sum(parameter.numel() * 4 for parameter in hf(model).parameters())
    before, most, made = storages(), [], torch.Tensor.clone

    def counted(self, *args, **kwargs):
        result = made(self, *args, **kwargs)
        most.append(sum(size for place, size in storages().items() if place not in before))
        return result

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    twin = clone(model)
    monkeypatch.undo()
    assert 0.9 * own <= max(most) <= 1.1 * own
    assert torch.equal(logits(twin), logits(model))


@pytest.mark.parametrize("name", [*CONFIGS, *ODD])
def test_a_module_out_of_a_bridge_is_loaded_without_that_bridge(name):
    """A copy of the bridge's parts would point to the first bridge, which may be gone by the time it is asked."""
    plain = tiny(name)
    expected = logits(plain)
    first = load(plain)
    again = load(hf(first))
    assert [slot.name for slot in slots(again)] == [slot.name for slot in slots(first)]
    assert [part for part, _ in hf(again).named_modules()] == [part for part, _ in hf(first).named_modules()]
    del first
    gc.collect()
    torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-4)
    _, cache = again.run_with_cache(IDS, names_filter="blocks.1.hook_resid_pre")
    assert cache["blocks.1.hook_resid_pre"].shape[:2] == IDS.shape
