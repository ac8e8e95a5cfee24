"""LoRA on a bridge, on every architecture: nothing changes at first, all is in the weights at the end."""

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf, load, slots
from mechunlearn.models.lora import lora

from ..architectures import NAMES, VOCABULARY, tiny

IDS = torch.arange(3, 15)[None]


def logits(model):
    with torch.no_grad():
        return model(IDS)


def shake(parameters) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("name", NAMES)
def test_on_and_off(name):
    model = load(tiny(name), device="cpu")
    before, weights = logits(model), {slot.name: slot.tensor.clone() for slot in slots(model)}
    names = [name for name, _ in hf(model).named_parameters()]
    with lora(model, 2, 4, range(1, 3)) as parameters:
        assert torch.equal(logits(model), before)
        trained = {id(parameter) for parameter in hf(model).parameters() if parameter.requires_grad}
        assert trained == {id(parameter) for parameter in parameters}
        hf(model)(input_ids=IDS).logits.logsumexp(-1).sum().backward()
        assert all(parameter.grad is not None for parameter in parameters)  # the forward pass reads all of them
        shake(parameters)
        during = logits(model)
        assert (during - before).abs().max() > 0.1
    torch.testing.assert_close(logits(model), during, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(clone(model)), during, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in hf(model).named_parameters()] == names
    assert all(parameter.requires_grad for parameter in hf(model).parameters())
    moved = {slot.name for slot in slots(model) if not torch.equal(slot.tensor, weights[slot.name])}
    linear = {
        slot.name
        for slot in slots(model)
        if slot.layer in (1, 2) and slot.tensor.dim() == 2 and not slot.name.endswith("norm.weight")
    }
    assert moved == linear


def test_the_weights_get_what_the_paper_says():
    model = load(tiny("llama"), device="cpu")
    down = hf(model).model.layers[0].mlp.down_proj
    before = down.weight.detach().clone()
    with lora(model, 3, 5, range(1), seed=7):
        found = dict(hf(model).named_parameters())
        (a,) = (value for name, value in found.items() if "down_proj" in name and "lora_A" in name)
        (b,) = (value for name, value in found.items() if "down_proj" in name and "lora_B" in name)
        assert a.shape == (3, before.shape[1])
        assert torch.equal(b, torch.zeros(before.shape[0], 3))
        shake([a, b])
        expected = before + 5 / 3 * b.detach() @ a.detach()
    torch.testing.assert_close(down.weight, expected)


def test_a_second_time_and_the_seed():
    def first(seed: int) -> torch.Tensor:
        with lora(model, 2, 2, None, seed) as parameters:
            return torch.cat([parameter.detach().flatten() for parameter in parameters])

    model = load(tiny("gpt2"), device="cpu")
    state = torch.random.get_rng_state()
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gone_after_an_exception():
    model = load(tiny("phi3"), device="cpu")
    hf(model).model.norm.weight.requires_grad_(False)
    before = logits(model)
    with pytest.raises(KeyboardInterrupt), lora(model, 2, 4):
        raise KeyboardInterrupt
    assert torch.equal(logits(model), before)
    assert not [name for name, _ in hf(model).named_modules() if "lora" in name]
    assert not hasattr(hf(model), "peft_config")
    frozen = [parameter.shape for parameter in hf(model).parameters() if not parameter.requires_grad]
    assert frozen == [hf(model).model.norm.weight.shape]


def test_bad_arguments_are_named():
    model = load(tiny("llama"), device="cpu")
    with pytest.raises(UserError, match="rank of an adapter must be at least 1, not 0"), lora(model, 0, 1):
        pass
    with pytest.raises(UserError, match="no linear map to adapt in layers"), lora(model, 1, 1, range(9, 12)):
        pass
    assert logits(model).shape[-1] == VOCABULARY
