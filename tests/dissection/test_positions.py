"""Positions count within each fact, whatever it is padded to and whoever it is measured with."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mechunlearn import Fact, Facts, dissect
from mechunlearn.dissection.positions import chosen, mask, reached, rule
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize
from mechunlearn.models import hf, load

from ..architectures import tiny
from ..pairs import changed, rows, word_level

PROMPTS = ["w5 w6 w7", "w15 w16", "w25 w26 w27 w28 w29 w30 w31", "w40"]
FACTS = Facts([Fact(prompt, answer) for prompt, answer in zip(PROMPTS, ["w8", "w17 w18", "w29", "w41"], strict=True)])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path_factory.mktemp("words"))
    before = load(tiny("llama"), tokenizer=words)
    return before, changed(before, lambda slot: slot.layer >= 0)


def measured(pair, facts, positions):
    found = dissect(*pair, facts, sites="residual", windows="single", positions=positions, progress=False)
    frame = found.frame[found.frame["metric"] == "mse"]
    return frame.set_index(["fact", "first_layer"])["distance"].sort_index(), found


@torch.no_grad()
def oracle(pair, fact, layer, place):
    """One fact, unpadded: TransformerLens' own hooks over the whole pass."""
    row = tokenize(Facts([fact]), pair[0].tokenizer)
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = pair[0].run_with_cache(row.ids, names_filter=[name])

    def write(tensor, hook):
        tensor = tensor.clone()
        tensor[:, place] = cache[hook.name][:, place]
        return tensor

    patched = pair[1].run_with_hooks(row.ids, fwd_hooks=[(name, write)])[row.predicts].double()
    return float((patched - hf(pair[0])(row.ids).logits[row.predicts].double()).pow(2).mean())


@pytest.mark.parametrize("place", [-1, -2, 0, 1])
def test_a_place_is_the_facts_own_whatever_stands_beside_it(pair, place):
    distance, found = measured(pair, FACTS, [place])
    lengths = {fact.id: len(fact.prompt.split()) + len(fact.answer.split()) - 1 for fact in FACTS}
    there = [fact for fact in FACTS if -lengths[fact.id] <= place < lengths[fact.id]]
    assert set(distance.index.get_level_values(0)) == {fact.id for fact in there}
    for fact in there:
        for layer in range(4):
            want = oracle(pair, fact, layer, place % lengths[fact.id])
            assert distance[fact.id, layer] == pytest.approx(want, rel=1e-4)
    lacking = len(FACTS) - len(there)
    assert (f"{lacking} of 4 questions have none" in found.about["positions_rule"]) == bool(lacking)


def test_a_fact_gives_the_same_alone_and_among_others(pair):
    together, _ = measured(pair, FACTS, [-1, 0])
    for fact in FACTS:
        alone, _ = measured(pair, Facts([fact]), [-1, 0])
        np.testing.assert_allclose(together[fact.id], alone[fact.id], rtol=1e-4)


def test_parameters_have_no_positions_and_keep_every_fact(pair):
    found = dissect(
        *pair, FACTS, sites=("residual", "block"), windows="single", positions=[6], progress=False
    ).frame  # fmt: skip
    counted = found.groupby("site", observed=True)["fact"].nunique()
    assert counted.to_dict() == {"residual": 1, "block": 4}


def test_masks_of_padded_rows():
    tokens = rows((6, 4), answer=2)  # predicting positions 3, 4 and 1, 2
    assert mask([-1], tokens).int().tolist() == [[0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]]
    assert mask([3], tokens).int().tolist() == [[0, 0, 0, 1, 0, 0], [0] * 6]
    assert mask([-4, 0], tokens).int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert reached([-4], tokens).tolist() == [True, False]
    assert rule([-4], reached([-4], tokens)).endswith("1 of 2 questions have none of them and are left out")
    assert mask("all", tokens) is None and reached("all", tokens).all()


@pytest.mark.parametrize("place", [5, 500, -6])
def test_what_lies_outside_every_fact_is_refused(place):
    said = f"position {place} lies outside every fact: the longest has 5 positions .* 0 to 4, or -1 to -5"
    with pytest.raises(UserError, match=said):
        reached([0, place], rows((6, 4), answer=2))


def test_a_place_outside_is_refused_before_anything_is_computed(pair, tmp_path):
    with pytest.raises(UserError, match="lies outside every fact"):
        dissect(*pair, FACTS, positions=[500], run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "positions is empty"),
        ([1.5], "1.5 is no whole number"),
        ([True], "True is no whole number"),
        (["3"], "'3' is no whole number"),
        (3, r"give a list, \[3\]"),
        ("last", "positions 'last': not one of all, answer"),
    ],
)
def test_what_is_no_position_is_named(given, said):
    with pytest.raises(UserError, match=said):
        chosen(given)


def test_numpy_integers_are_positions():
    assert chosen(np.array([0, -1])) == [0, -1]


def test_a_patch_that_reaches_nothing_is_told_from_one_that_brings_nothing_back(pair):
    """In the last layer, before the position that predicts the answer, the output of the MLP goes nowhere."""
    config = tiny("llama").config.to_dict() | {"num_hidden_layers": 1}
    torch.manual_seed(0)
    one_layer = load(AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)), tokenizer=pair[0].tokenizer)
    both = one_layer, changed(one_layer, lambda slot: slot.layer >= 0)
    options = {"sites": ["mlp_output", "residual"], "windows": "single", "progress": False}
    for positions, share in (("prompt", 0.0), ("answer", 1.0), ("all", 1.0)):
        controls = dissect(*both, FACTS, positions=positions, **options).controls
        reach = controls[controls["metric"] == "share of facts"].set_index("site")
        assert reach["measured"].to_dict() == {"mlp_output": share, "residual": 1.0}
        assert reach["passed"].to_dict() == {"mlp_output": bool(share), "residual": True}


def test_facts_without_a_place_are_no_control_facts_and_all_of_them_are_refused(pair):
    short = FACTS.with_items([fact for fact in FACTS if " " not in fact.prompt])
    with pytest.raises(UserError, match="no question has a token there"):
        dissect(*pair, short, sites="residual", windows="single", positions="prompt", progress=False)


def test_positions_of_a_pattern_are_those_of_its_queries(pair):
    """The first token attends to itself alone in either model: patched there, nothing can come back."""
    options = {"sites": "blocks.{l}.attn.hook_pattern", "windows": "all", "progress": False}
    for positions, moves in (([0], False), ([-1], True)):
        frame = dissect(*pair, FACTS, positions=positions, **options).frame
        assert (frame["distance"].sub(frame["baseline"]).abs() > 1e-6).any() == moves


def test_noise_late_in_a_long_answer_reaches_it_in_pieces(pair, monkeypatch):
    monkeypatch.setattr(sys.modules["mechunlearn.dissection.sweep"], "SCORED_AT_ONCE", pair[0].cfg.d_vocab)
    long = FACTS.with_items([Fact("w5 w6", "w7 w8 w9 w10")])
    controls = dissect(*pair, long, sites="residual", windows="all", positions=[-1], progress=False).controls
    reach = controls[controls["metric"] == "share of facts"]
    assert reach["measured"].tolist() == [1.0]


@pytest.mark.parametrize("positions", ["all", "paper"])
def test_controls_of_an_answer_in_pieces_are_those_of_the_whole(pair, monkeypatch, positions):
    long = FACTS.with_items([Fact("w5 w6", "w7 w8 w9 w10"), Fact("w15 w16 w17", "w18 w19")])
    options = {"sites": "residual", "windows": "all", "positions": positions, "progress": False}
    want = dissect(*pair, long, **options).controls
    monkeypatch.setattr(sys.modules["mechunlearn.dissection.sweep"], "SCORED_AT_ONCE", pair[0].cfg.d_vocab)
    found = dissect(*pair, long, **options).controls
    names = ["control", "site", "metric", "expected", "passed"]
    assert found[names].equals(want[names])
    np.testing.assert_allclose(found["measured"], want["measured"], atol=1e-6)  # fewer rows, another kernel
    assert want["measured"].notna().all() and want["passed"].ne(False).all()


@pytest.mark.parametrize("positions", ["all", [0]])
def test_a_hook_without_a_row_a_fact_is_refused_in_one_line(pair, positions):
    """The rotary tables have one row, whoever passes."""
    with pytest.raises(UserError, match=r"hook_cos has the shape \(1, .*one row"):
        dissect(*pair, FACTS, sites="blocks.{l}.attn.hook_cos", windows="all", positions=positions, progress=False)
