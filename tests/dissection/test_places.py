"""Chosen places of sites, by layer and joined, against plain passes of the Hugging Face modules with hooks by hand."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest
import torch

from mechunlearn import dissect
from mechunlearn.dissection import windows
from mechunlearn.dissection.patches import patches
from mechunlearn.dissection.sweep import Sweep
from mechunlearn.errors import UserError
from mechunlearn.facts import Fact, Facts
from mechunlearn.models import compare, hf, load
from mechunlearn.sites import resolve

from ..architectures import LAYERS, tiny
from ..pairs import before, changed, rows, word_level

HEAD = 8  # numbers of a head: 32 over 4 heads
TENS = list(range(10))
WINDOWS = windows.given([(0, 0), (0, 1), (1, 3), (2, 2), (3, 3), (0, 3)])


def heads(*numbers):
    return [HEAD * head + place for head in numbers for place in range(HEAD)]


# What is written by hand: (layer, module in it, its input or output, columns); columns None: all.
ACTIVATIONS = {
    "mlp_coefficients[3:17,1:0-9]": [(1, "mlp.down_proj", "in", TENS), (3, "mlp.down_proj", "in", [17])],
    "head_output[2:0,3:1-3]": [(2, "self_attn.o_proj", "in", heads(0)), (3, "self_attn.o_proj", "in", heads(1, 2, 3))],
    "head_output[1-2:3]": [(layer, "self_attn.o_proj", "in", heads(3)) for layer in (1, 2)],
    "mlp_coefficients[0-9]+attention_output": [
        (layer, *what)
        for layer in range(LAYERS)
        for what in (("mlp.down_proj", "in", TENS), ("self_attn.o_proj", "out", None))
    ],
    "mlp_output+head_output[2:0,3:1-3]": [
        *((layer, "mlp", "out", None) for layer in range(LAYERS)),
        (2, "self_attn.o_proj", "in", heads(0)),
        (3, "self_attn.o_proj", "in", heads(1, 2, 3)),
    ],
    "head_output[1:2]+mlp_coefficients[3:5]": [
        (1, "self_attn.o_proj", "in", heads(2)),
        (3, "mlp.down_proj", "in", [5]),
    ],
}
VALUE_VECTORS = {
    "value_vectors[3:17,1:0-9]": {1: TENS, 3: [17]},
    "value_vectors[1-2:4,2:40-47]": {1: [4], 2: [4, *range(40, 48)]},
}


def module(model, layer, name):
    return hf(model).get_submodule(f"model.layers.{layer}.{name}")


def catch(kept, key, _, args, output):
    kept[key] = args[0] if key[2] == "in" else output


def write_in(value, columns, _, args):
    changed = args[0].clone()
    changed[..., columns] = value[..., columns]
    return (changed, *args[1:])


def write_out(value, columns, _, __, output):
    assert columns is None and output.shape == value.shape
    return value


@torch.no_grad()
def by_hooks(donor, recipient, written, tokens):
    """The recipient's own pass, in which these columns are the donor's."""
    kept = {}
    with ExitStack() as stack:
        for key in {(layer, name, side) for layer, name, side, _ in written}:
            stack.callback(module(donor, *key[:2]).register_forward_hook(partial(catch, kept, key)).remove)
        hf(donor)(tokens.ids, attention_mask=tokens.attention)
    with ExitStack() as stack:
        for layer, name, side, columns in written:
            target, value = module(recipient, layer, name), kept[layer, name, side]
            if side == "in":
                handle = target.register_forward_pre_hook(partial(write_in, value, columns))
            else:
                handle = target.register_forward_hook(partial(write_out, value, columns))
            stack.callback(handle.remove)
        return hf(recipient)(tokens.ids, attention_mask=tokens.attention).logits[tokens.predicts]


@torch.no_grad()
def by_weights(donor, recipient, restored, tokens):
    """The recipient's own pass with these columns of its down-projections the donor's, which are put back."""
    kept = {layer: module(recipient, layer, "mlp.down_proj").weight.clone() for layer in restored}
    for layer, columns in restored.items():
        weight = module(recipient, layer, "mlp.down_proj").weight
        weight[:, columns] = module(donor, layer, "mlp.down_proj").weight[:, columns]
    logits = hf(recipient)(tokens.ids, attention_mask=tokens.attention).logits[tokens.predicts]
    for layer, value in kept.items():
        module(recipient, layer, "mlp.down_proj").weight.copy_(value)
    return logits


@torch.no_grad()
def swept(donor, model, site, tokens):
    """The logits of every window that holds a place of the site, by window; and those without a patch."""
    chosen = patches([resolve(site, model)], [WINDOWS], LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different)
    ((passes, _),) = sweep.record(tokens)
    found = {}
    for numbers, logits, _ in sweep.patched(passes):
        found |= {(chosen[n].first, chosen[n].last): one for n, one in zip(numbers, logits, strict=True)}
    return found, passes.plain


@pytest.mark.parametrize("site", [*ACTIVATIONS, *VALUE_VECTORS])
def test_a_window_patches_the_chosen_places_of_its_layers(site):
    donor, model, tokens = before("llama"), changed(before("llama"), lambda _: True, 0.05), rows()
    found, plain = swept(donor, model, site, tokens)
    wanted = ACTIVATIONS.get(site) or [(layer, columns) for layer, columns in VALUE_VECTORS[site].items()]
    holding = {w for w in WINDOWS(LAYERS) if any(w[0] <= one[0] <= w[1] for one in wanted)}
    assert set(found) == holding  # a window without a place is left out
    for (first, last), logits in found.items():
        if site in ACTIVATIONS:
            expected = by_hooks(donor, model, [one for one in ACTIVATIONS[site] if first <= one[0] <= last], tokens)
        else:
            inside = {layer: some for layer, some in VALUE_VECTORS[site].items() if first <= layer <= last}
            expected = by_weights(donor, model, inside, tokens)
        assert float((logits - expected).abs().max()) <= 1e-5 * float(plain.abs().max()), (first, last)
        assert float((expected - plain).abs().max()) > 1e-4 * float(plain.abs().max())


@pytest.fixture(scope="module")
def planted():
    """A pair that differs in one value vector of layer 1 and one of layer 3, and nowhere else."""
    after = load(tiny("llama"))
    with torch.no_grad():
        for layer, column in ((1, 5), (3, 17)):
            module(after, layer, "mlp.down_proj").weight[:, column] += 0.5
    return before("llama"), after


@pytest.mark.parametrize(
    ("site", "exact"),
    [("value_vectors[1:5,3:17]", True), ("value_vectors[1:5]", False), ("value_vectors[1:6,3:17]", False),
     ("mlp_output[1:0-31,3:0-31]", True), ("mlp_output[1:0-30,3:0-31]", False)],
)  # fmt: skip
def test_together_the_places_that_differ_give_everything_back_and_less_does_not(planted, site, exact):
    donor, after = planted
    tokens = rows()
    found, plain = swept(donor, after, site, tokens)
    with torch.no_grad():
        wanted = hf(donor)(tokens.ids, attention_mask=tokens.attention).logits[tokens.predicts]
    assert (float((found[0, 3] - wanted).abs().max()) < 1e-5 * float(plain.abs().max())) == exact


def test_a_dissection_has_the_windows_that_hold_a_place(planted, tmp_path):
    words = word_level([f"w{i}" for i in range(3, 96)], tmp_path)
    pair = [load(model, tokenizer=words) for model in planted]
    facts = Facts([Fact("w5 w6 w7", "w8"), Fact("w15 w16", "w17 w18")])
    sites = ["value_vectors[1:5,3:17]", "head_output[2:0]+mlp_coefficients[3:17]"]
    found = dissect(*pair, facts, sites=sites, windows="single,all", progress=False)
    held = found.frame.groupby("site", observed=True)[["first_layer", "last_layer"]].apply(
        lambda frame: sorted(set(frame.itertuples(index=False, name=None)))
    )
    assert held.to_dict() == {sites[0]: [(0, 3), (1, 1), (3, 3)], sites[1]: [(0, 3), (2, 2), (3, 3)]}
    assert found.controls["passed"].ne(False).all()
    with pytest.raises(UserError, match=r"no window of given\(0-0\) holds a given site"):
        dissect(*pair, facts, sites=sites, windows=[(0, 0)], progress=False)
