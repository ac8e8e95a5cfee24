"""Site names: resolved against a model, or refused with the reason."""

import pytest

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


def test_places_are_given_one_by_one_or_in_ranges():
    model = before("llama")
    assert resolve("value_vectors[0-3, 7,2]", model).select == (0, 1, 2, 3, 7)
    assert resolve("head_output[0-0]", model).select == (0,)


def test_a_set_of_characters_at_the_end_of_a_regular_expression_is_none_of_places():
    found = resolve(r"blocks\.[0-1]\.mlp\.out\.weigh[s-u]", before("llama"))
    assert [slot.path for slot in found.slots] == ["blocks.0.mlp.out.weight", "blocks.1.mlp.out.weight"]
    assert [slot.layer for slot in resolve(r"layers\.[23]", before("llama")).slots][::9] == [2, 3]


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
        ("value_vectors[99999999999999999999999]", "beyond what any model has"),
        ("value_vectors[0-99999999]", "beyond what any model has"),
    ],
)
def test_what_does_not_exist_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        resolve(name, before("olmo"))
