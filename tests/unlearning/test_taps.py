"""Gradients made of changed factors: without a change they are autograd's."""

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import hf, load
from mechunlearn.unlearning.collapse.taps import tapped

from ..architectures import NAMES, tiny

IDS = torch.tensor([[3, 5, 7, 9, 4], [6, 2, 8, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def mlp_weights(model):
    parts = [(block, part) for block in model.blocks for part in ("gate", "in", "out") if part in block.mlp.submodules]
    return [block.mlp.submodules[part].original_component.weight for block, part in parts]


def gradients(model, weights):
    hf(model)(input_ids=IDS, attention_mask=MASK).logits.square().mul(MASK[..., None]).mean().backward()
    found = [weight.grad.clone() for weight in weights]
    hf(model).zero_grad()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_without_change_the_gradient_is_autograds(name):
    model = load(tiny(name))
    weights = mlp_weights(model)
    expected = gradients(model, weights)
    with tapped(model, weights):
        found = gradients(model, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))
    again = gradients(model, weights)
    assert all(torch.equal(one, other) for one, other in zip(again, expected, strict=True))


def test_changed_factors_make_the_gradient_and_lower_layers_get_the_true_one():
    model = load(tiny("llama"))
    weights = mlp_weights(model)
    plain = gradients(model, weights)
    seen = {}
    with tapped(model, weights[-1:]) as taps:
        tap = taps.taps[0]
        tap.watch = lambda a, g: seen.update(a=a.clone(), g=g.clone())
        tap.inputs, tap.outputs = lambda a: 2 * a, lambda g: g.roll(1, dims=1)
        taps.valid = MASK.bool()
        found = gradients(model, weights)
    assert seen["a"].shape[0] == seen["g"].shape[0] == int(MASK.sum())
    torch.testing.assert_close(found[-1], seen["g"].roll(1, dims=1).T @ (2 * seen["a"]))
    for one, other in zip(found[:-1], plain[:-1], strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_that_do_not_count_are_left_out():
    model = load(tiny("llama"))
    weights = mlp_weights(model)
    with tapped(model, weights) as taps:
        taps.valid = torch.zeros_like(MASK, dtype=torch.bool)
        assert all(float(part.abs().max()) == 0 for part in gradients(model, weights))


def test_maps_that_see_all_tokens_in_one_row_count_the_same_ones():
    """OPT's MLPs get the text flattened: with the tokens of one row alone they see what that row has."""
    model = load(tiny("opt"))
    weights = mlp_weights(model)
    seen = []
    with tapped(model, weights[-1:]) as taps:
        taps.taps[0].watch = lambda a, g: seen.append((a.clone(), g.clone()))
        taps.valid = MASK.bool()
        gradients(model, weights)
        taps.valid = torch.ones_like(MASK, dtype=torch.bool)
        gradients(model, weights)
    (a, g), (whole_a, whole_g) = seen
    torch.testing.assert_close(a, whole_a[MASK.flatten().bool()])
    torch.testing.assert_close(g, whole_g[MASK.flatten().bool()])


def test_a_map_that_sees_other_tokens_than_the_text_is_named():
    model = load(tiny("llama"))
    weights = mlp_weights(model)
    with tapped(model, weights) as taps:
        taps.taps[0].watch = lambda a, g: None
        taps.valid = torch.ones(2, 4, dtype=torch.bool)
        with pytest.raises(UserError, match=r"sees vectors of shape \(2, 5, 48\) where the text has \(2, 4\) tokens"):
            gradients(model, weights)


def test_what_is_no_linear_map_is_named_and_nothing_is_left_behind():
    model = load(tiny("llama"))
    weights = mlp_weights(model)
    embedding = hf(model).get_input_embeddings().weight
    with pytest.raises(UserError, match="embed"), tapped(model, [*weights, embedding]):
        pass
    assert not any("forward" in vars(module) for module in hf(model).modules())
