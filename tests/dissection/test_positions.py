"""Positions count within each fact, whatever it is padded to and whoever it is measured with."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mechunlearn import Fact, Facts, dissect
from mechunlearn.dissection.positions import chosen, mask, reached, rule
from mechunlearn.errors import UserError
from mechunlearn.facts import Template, mark_subjects, tokenize
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


def measured(pair, facts, positions, **options):
    given = {"sites": "residual", "windows": "single", "progress": False} | options
    found = dissect(*pair, facts, positions=positions, **given)
    frame = found.frame[found.frame["metric"] == "mse"]
    return frame.set_index(["fact", "first_layer"])["distance"].sort_index(), found


@torch.no_grad()
def oracle(pair, fact, layer, place, template=None):
    """One fact, unpadded: TransformerLens' own hooks over the whole pass."""
    row = tokenize(Facts([fact]), pair[0].tokenizer, template)
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


NAMED = Facts(
    [
        Fact("w5 w6 w7 w8 w9 w6 w7 w10", "w11 w12", subject="w6 w7"),  # two tokens, twice: the second time counts
        Fact("w15 w16 w17", "w18", subject="w15"),  # at the start
        Fact("w25 w26", "w27 w28 w29", subject="w26"),  # at the end
        Fact("w35 w36", "w37", subject="w38"),  # not mentioned
        Fact("w45 w46 w47", "w48 w49"),  # nobody said
    ]
)
PLACES = {
    "subject": [[5, 6], [0], [1], [], []],
    "subject_last": [[6], [0], [1], [], []],
    "prompt_last": [[7], [2], [1], [1], [2]],
    "answer_first": [[8], [], [2], [], [3]],  # of one token: what is patched there reaches no prediction of it
}


@pytest.mark.parametrize("bos", [None, True])
@pytest.mark.parametrize("positions", PLACES)
def test_places_said_by_their_meaning_are_those_counted_by_hand(pair, positions, bos):
    template = Template(bos=bos)
    distance, found = measured(pair, NAMED, positions, template=template)
    there = [(fact, hand) for fact, hand in zip(NAMED, PLACES[positions], strict=True) if hand]
    assert set(distance.index.get_level_values(0)) == {fact.id for fact, _ in there}
    for fact, hand in there:
        for layer in range(4):
            want = oracle(pair, fact, layer, [place + (bos is True) for place in hand], template)
            assert distance[fact.id, layer] == pytest.approx(want, rel=1e-4)
    lacking = len(NAMED) - len(there)
    said = found.about["positions_rule"]
    assert (f"{lacking} of 5 questions have none of them and are left out" in said) == bool(lacking)
    assert said in found.about["notes"] and f"Mind: {said}" in str(found)
    reach = found.controls[found.controls["metric"] == "share of facts"]
    assert reach["measured"].tolist() == [1.0]


def test_a_named_place_is_the_same_among_others_and_in_a_window(pair):
    for positions in ("subject", "answer_first"):
        together, _ = measured(pair, NAMED, positions, sites="mlp_output", windows=[(1, 2)], batch_size=2)
        for number in (0, 2):
            alone, _ = measured(pair, NAMED[number : number + 1], positions, sites="mlp_output", windows=[(1, 2)])
            np.testing.assert_allclose(together[str(number)], alone[str(number)], rtol=1e-4)


def test_the_last_of_the_prompt_predicts_the_first_of_the_answer(pair):
    """Of answers of one token it is the last position that predicts them, and where the answer is predicted at all."""
    short = NAMED.with_items([NAMED[1], NAMED[3]])
    named, by_number, answer = (measured(pair, short, p)[0] for p in ("prompt_last", [-1], "answer"))
    assert named.equals(by_number) and named.equals(answer)


def test_held_out_phrasings_have_places_of_their_own(pair):
    fact = Fact("w5 w6 w7", "w11", id="a", subject="w6", held_out=("w20 w21 w6", "w20 w22"))
    _, found = measured(pair, Facts([fact]), "subject_last", prompts="all")
    assert set(found.frame["question"]) == {"a", "a#h0"}
    assert "1 of 3 questions have none" in found.about["positions_rule"]
    alone, _ = measured(pair, Facts([Fact("w20 w21 w6", "w11", id="x")]), [2])
    rows = found.frame[(found.frame["question"] == "a#h0") & (found.frame["metric"] == "mse")]
    np.testing.assert_allclose(rows.sort_values("first_layer")["distance"], alone["x"].to_numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("facts", "positions", "said"),
    [
        (FACTS, "subject", "positions='subject': none of these 4 questions has a subject"),
        (NAMED[3:], "subject_last", "positions='subject_last': no prompt mentions its subject .*'w38'"),
        (
            NAMED[3:4],
            "answer_first",
            "'answer_first': no question has a token there that reaches what is scored.*than one",
        ),
    ],
)
def test_where_no_fact_has_such_a_place_nothing_is_computed(pair, facts, positions, said, tmp_path):
    with pytest.raises(UserError, match=said):
        dissect(*pair, facts, positions=positions, run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_masks_of_meanings_by_hand():
    tokens = rows((6, 4), answer=2)
    assert mask("prompt_last", tokens).int().tolist() == [[0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]]
    assert mask("answer_first", tokens).int().tolist() == [[0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]]
    assert mask("answer_first", rows((6, 4), answer=1)).sum() == 0
    with pytest.raises(UserError, match="do not say where subjects are"):
        mask("subject", tokens)


def test_subjects_of_a_conversation_are_patched_where_the_user_says_them(pair, tmp_path):
    words = word_level(["[", "]", *(f"w{i}" for i in range(3, 91))], tmp_path)
    words.chat_template = "{% for m in messages %}[ {{ m.content }} ] {% endfor %}"
    chatting = load(pair[0], tokenizer=words), load(pair[1], tokenizer=words)
    fact, template = Fact("w5 w6 w7", "w8", subject="w6"), Template(chat=True, system="w6 w9")
    row = mark_subjects(tokenize([fact], words, template), [fact], words, template)
    asked = words.convert_ids_to_tokens(row.ids[0].tolist())
    assert asked == ["[", "w6", "w9", "]", "[", "w5", "w6", "w7", "]", "[", "w8"]
    distance, _ = measured(chatting, Facts([fact]), "subject", template=template)
    assert distance["0", 2] == pytest.approx(oracle(chatting, fact, 2, 6, template), rel=1e-4)


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
        ("subject_lst", r"positions 'subject_lst': .* Did you mean subject_last\?"),
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
