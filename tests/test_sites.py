"""Site names: resolved against a model, or refused with the reason."""

import re

import pytest

from mechunlearn import sites
from mechunlearn.errors import UserError
from mechunlearn.models import slots
from mechunlearn.sites import ACTIVATIONS, PARAMETERS, available, resolve

from .architectures import LAYERS, NAMES
from .pairs import before


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_says_what_it_has(name):
    lacking = [site for site, there in available(before(name)).items() if not there]
    experts = ["expert_value_vectors", "expert_keys", "router"]
    norms = ["norms", "final_norm"] if name == "olmo" else []  # OLMo's have no parameters
    assert [site for site in lacking if site not in experts] == norms


@pytest.mark.parametrize("name", NAMES)
def test_the_elementary_sites_partition_the_parameters(name):
    model = before(name)
    parts = [s for s in PARAMETERS if s not in ("attention", "block", "everything") and available(model)[s]]
    paths = [slot.path for site in parts for slot in resolve(site, model).slots]
    tied = [slot.path for slot in slots(model) if len(slot.roles) == 2]
    assert sorted(paths) == sorted([*(slot.path for slot in slots(model)), *tied])
    assert {s.path for s in resolve("everything", model).slots} == {slot.path for slot in slots(model)}


def test_hooks_of_named_and_of_free_sites():
    model = before("llama")
    both = resolve("mlp_coefficients+attention_output", model)
    assert both.hooks[2] == ("blocks.2.mlp.hook_post", "blocks.2.hook_attn_out")
    assert resolve("blocks.{l}.attn.hook_q", model).layers() == tuple(range(LAYERS))
    assert resolve("blocks.3.attn.hook_q", model).hooks == {3: ("blocks.3.attn.hook_q",)}
    assert set(ACTIVATIONS) <= set(available(model))


def test_regular_expressions_match_names_of_both_libraries():
    model = before("llama")
    by_transformers = resolve(r"layers\.1\.mlp\.down_proj", model)
    by_lens = resolve(r"blocks\.1\.mlp\.out", model)
    assert [s.path for s in by_transformers.slots] == [s.path for s in by_lens.slots] == ["blocks.1.mlp.out.weight"]
    assert by_lens.layered
    assert not resolve("weight$", model).layered  # reaches outside the blocks


def places(name, architecture="llama"):
    """By layer what a site chooses, with the names that it chooses in; None is all."""
    site = resolve(name, before(architecture))
    found = {layer: [(hook, site.select.get(hook)) for hook in hooks] for layer, hooks in site.hooks.items()}
    for slot in site.slots:
        found.setdefault(slot.layer, []).append((slot.path, site.select.get(slot.path)))
    assert site.layers() == tuple(sorted(found)) == tuple(found)
    assert set(site.select) <= {name for here in found.values() for name, _ in here}
    return {layer: [(re.sub(r"blocks\.\d+\.", "", name), chosen) for name, chosen in found[layer]] for layer in found}


def everywhere(*chosen):
    return {layer: list(chosen) for layer in range(LAYERS)}


def test_places_are_given_one_by_one_or_in_ranges():
    assert places("value_vectors[0-3, 7,2]") == everywhere(("mlp.out.weight", (0, 1, 2, 3, 7)))
    assert places("head_output[0-0]") == everywhere(("attn.hook_z", (0,)))


def test_places_are_given_by_layer():
    ninety = tuple(range(30))
    assert places("mlp_coefficients[3:17,1:0-29]") == {1: [("mlp.hook_post", ninety)], 3: [("mlp.hook_post", (17,))]}
    assert places("head_output[2:0, 3:1-3, 2:2]") == {2: [("attn.hook_z", (0, 2))], 3: [("attn.hook_z", (1, 2, 3))]}
    assert places("head_output[1-2:0,2:3]") == {1: [("attn.hook_z", (0,))], 2: [("attn.hook_z", (0, 3))]}
    assert places("value_vectors[3:17,1:0-29]") == {1: [("mlp.out.weight", ninety)], 3: [("mlp.out.weight", (17,))]}
    assert places("value_vectors[2:4]", "gpt2") == {2: [("mlp.out.weight", (4,)), ("mlp.out.bias", (4,))]}
    assert resolve("value_vectors[3:17]", before("llama")).layered


def test_what_is_joined_has_places_of_its_own():
    some = [("mlp.hook_post", (0, 1, 2)), ("hook_attn_out", None)]
    assert places("mlp_coefficients[0-2]+attention_output") == everywhere(*some)
    assert places(" mlp_coefficients[0-2] + attention_output ") == everywhere(*some)
    assert places("head_output[0]+residual[3]") == everywhere(("attn.hook_z", (0,)), ("hook_resid_pre", (3,)))
    # A part by layer adds its places to what the others have in theirs.
    whole = everywhere(("hook_mlp_out", None))
    assert places("mlp_output+head_output[2:0,3:1-3]") == whole | {
        2: [("hook_mlp_out", None), ("attn.hook_z", (0,))],
        3: [("hook_mlp_out", None), ("attn.hook_z", (1, 2, 3))],
    }
    both = {0: [("mlp.hook_post", (7,))], 2: [("attn.hook_z", (1,))]}
    assert places("head_output[2:1]+mlp_coefficients[0:7]") == both
    # The same hook twice: the places of both, and all of them where one part means all.
    assert places("head_output[2]+head_output[0]") == everywhere(("attn.hook_z", (0, 2)))
    assert places("head_output[3]+head_output[1:0-1]")[1] == [("attn.hook_z", (0, 1, 3))]
    assert places("residual[1]+residual") == places("residual") == everywhere(("hook_resid_pre", None))
    hooked = places("blocks.3.attn.hook_q+head_output[3:1]")
    assert hooked == {3: [("attn.hook_q", None), ("attn.hook_z", (1,))]}


def test_a_set_of_characters_at_the_end_of_a_regular_expression_is_none_of_places():
    found = resolve(r"blocks\.[0-1]\.mlp\.out\.weigh[s-u]", before("llama"))
    assert [slot.path for slot in found.slots] == ["blocks.0.mlp.out.weight", "blocks.1.mlp.out.weight"]
    assert [slot.layer for slot in resolve(r"layers\.[23]", before("llama")).slots][::9] == [2, 3]


def test_a_layer_that_lacks_the_site_is_named_with_those_that_have_it(monkeypatch):
    # Of this mixture every other MLP is dense.
    assert places("value_vectors[0:3]", "qwen-moe") == {0: [("model.layers.0.mlp.down_proj.weight", (3,))]}
    with pytest.raises(UserError, match="layer 1 has no value_vectors; layers 0, 2 have"):
        resolve("value_vectors[0-2:3]", before("qwen-moe"))
    monkeypatch.setattr(sites, "faults", lambda _: {("mlp_coefficients", 2): "an odd one"})
    assert set(places("residual+mlp_coefficients[5]")) == {0, 1, 3}
    assert set(places("residual+mlp_coefficients[3:5]")) == {0, 1, 2, 3}
    with pytest.raises(UserError, match="layer 2 has no mlp_coefficients; layers 0–1, 3 have"):
        resolve("residual+mlp_coefficients[2-3:5]", before("llama"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("norms", "OlmoForCausalLM has no such parameters"),
        ("blocks.9.attn.hook_q", "has no blocks.9.attn.hook_q"),
        ("hook_embed", "not a hook inside a block"),
        ("no_such_site", "no such site, and as a regular expression it matches no parameter"),
        ("mlp.down_proj(", "nor a regular expression"),
        ("head_output[0,9]", "index 9 lies outside; head_output has 0 to 3"),
        ("norms_of[1]", "matches no parameter"),
        ("attention_qk[1]", "indices can be given for"),
        ("head_output[3-1]", "the range 3-1 ends before it begins"),
        ("head_output[0-9]", "index 9 lies outside; head_output has 0 to 3"),
        ("head_output[0,,3]", "'' is no place and no range of places"),
        ("head_output[-1]", "'-1' is no place and no range of places"),
        (f"value_vectors[{'9' * 5000}]", "beyond what any model has"),
        ("value_vectors[99999999999999999999999]", "index 99999999999999999999999 lies outside"),
        ("value_vectors[0-99999999]", "index 99999999 lies outside; value_vectors has 0 to 47 in a layer"),
        ("head_output[0-1:0-99999999]", "index 99999999 lies outside; head_output has 0 to 3 in a layer"),
        ("head_output[17:3]", r"layer 17 lies outside; the model has layers 0 to 3 \(the number before a colon"),
        ("value_vectors[0-99999999:0]", "layer 99999999 lies outside"),
        ("mlp_output+head_output[0,1:2]", "some places name their layer and others do not"),
        (
            "head_output[1:]",
            r"'1:' is no place and no range of places; write \[0,3\] .* \[3:17\] for place 17 of layer 3",
        ),
        ("head_output[1:2:3]", "'1:2:3' is no place"),
        ("head_output[3-1:0]", "the range 3-1 ends before it begins"),
        ("mlp_keys[3:1]", "indices can be given for"),
        ("blocks.{l}.attn.hook_q[1]+residual", "indices can be given for"),
        ("value_vectors[3]+head_output[0,3]", r"\+ joins activations alone; parameters are put back before a pass"),
        ("value_vectors+mlp_keys", r"\+ joins activations alone.*give them as sites of their own"),
        ("blocks.1.attn.hook_q+blocks.2.attn.hook_q", "no layer of OlmoForCausalLM has all of it"),
    ],
)
def test_what_does_not_exist_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        resolve(name, before("olmo"))
