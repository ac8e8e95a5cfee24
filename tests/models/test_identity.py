"""Another model is told by its weights, by the configuration it computes with, and by its tokenizer."""

import json

import pytest
import torch

import mechunlearn as mu
from mechunlearn.errors import UserError
from mechunlearn.models import clone, compare, fingerprint, hf, load, save

from ..architectures import NAMES, ODD
from ..pairs import before, word_level

# Fields that enter the computation of one architecture or another, and another value for each.
ENTERING = {
    "llama": {"rms_norm_eps": 1e-2, "hidden_act": "gelu", "rope_parameters.rope_theta": 77.0},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 30},
    "mistral": {"sliding_window": 2},
    "neox": {"layer_norm_eps": 1e-1, "use_parallel_residual": False},
    "gpt2": {"layer_norm_epsilon": 1e-1, "activation_function": "relu", "scale_attn_by_inverse_layer_idx": True},
}
CASES = [(name, field, value) for name, fields in ENTERING.items() for field, value in fields.items()]


def with_field(folder, field, value):
    """The checkpoint with one field of its configuration changed in place."""
    path = folder / "config.json"
    content = place = json.loads(path.read_text())
    *within, last = field.split(".")
    for key in within:
        place = place[key]
    assert place.get(last) != value
    place[last] = value
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("name", "field", "value"), CASES)
def test_a_field_that_enters_the_computation_is_told(name, field, value, tmp_path):
    given = before(name)
    other = load(with_field(save(given, tmp_path / "saved"), field, value), device="cpu")
    marks = fingerprint(given), fingerprint(other)
    assert marks[0]["weights"] == marks[1]["weights"]
    assert marks[0]["configuration"] != marks[1]["configuration"]
    found = compare(given, other)
    assert list(found.configuration) == [field]
    assert f"{field} (" in str(found) and f"{value} after)" in str(found)
    assert found.about["configuration"][field][1] == value


@pytest.mark.parametrize("name", [*NAMES, *ODD])
def test_saved_opened_and_copied_it_is_the_same_model(name, tmp_path):
    given = before(name)
    again = load(save(given, tmp_path / "saved"), device="cpu")
    assert fingerprint(given) == fingerprint(again) == fingerprint(clone(given))
    assert compare(given, again).configuration == {}


def test_where_it_came_from_and_who_wrote_it_is_no_difference(tmp_path):
    given = before("llama")
    folder = save(given, tmp_path / "saved")
    for field, value in {"transformers_version": "4.1", "architectures": ["Other"], "use_cache": False}.items():
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | {field: value}))
    assert fingerprint(load(folder, device="cpu")) == fingerprint(given)


def test_a_tensor_beside_the_parameters_counts():
    given = before("llama")
    mark = fingerprint(given)
    hf(given).model.layers[0].register_buffer("scale", torch.ones(2))
    assert fingerprint(given)["weights"] != mark["weights"]


def test_the_tokenizer_counts_and_the_last_call_of_it_does_not(tmp_path):
    given = before("llama")
    own = load(given, tokenizer=word_level(["a", "b"], tmp_path / "one"))
    mark = fingerprint(own)
    own.tokenizer(["a b", "a"], padding=True, truncation=True, max_length=3)
    assert fingerprint(own) == mark
    other = load(given, tokenizer=word_level(["b", "a"], tmp_path / "other"))
    assert fingerprint(other)["tokenizer"] != mark["tokenizer"]
    own.tokenizer.chat_template = "{{ messages }}"
    assert fingerprint(own)["tokenizer"] != mark["tokenizer"]


@pytest.mark.parametrize("verb", ["dissect", "evaluate", "attack", "unlearn"])
def test_a_result_of_before_the_configuration_changed_is_not_given_back(verb, tmp_path):
    facts = mu.Facts.builtin("organism")
    few = facts.with_items([*facts.forget[:2], *facts.retain[:2]])
    folder = save(load("organism", device="cpu"), tmp_path / "model")
    run = {"run": tmp_path / "run", "progress": False}
    calls = {
        "dissect": lambda: mu.dissect(folder, "organism:never-knew", few, sites="mlp_output", **run),
        "evaluate": lambda: mu.evaluate(folder, few, measures="recall", **run),
        "attack": lambda: mu.attack(folder, few, suite="quantise", **run),
        "unlearn": lambda: mu.unlearn(folder, "gradient_ascent", few.forget, few.retain, steps=1, **run),
    }
    calls[verb]()
    calls[verb]()  # the same model: read again
    with_field(folder, "rms_norm_eps", 1e-2)
    with pytest.raises(UserError, match=r"other settings \([a-z.]*configuration was "):
        calls[verb]()
