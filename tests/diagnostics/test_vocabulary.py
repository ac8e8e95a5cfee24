"""What value vectors promote, against each architecture's formula written out, and against the model itself."""

from functools import cache

import pytest
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from mechunlearn.diagnostics import promoted
from mechunlearn.diagnostics.vocabulary import _through, value_vectors
from mechunlearn.errors import UserError
from mechunlearn.models import load

from ..architectures import LAYERS, NAMES, VOCABULARY, WIDTH, tiny
from ..pairs import before, rows, word_level

WORDS = [f"w{number}" for number in range(3, VOCABULARY)]


@cache
def _model(name: str, folder) -> TransformerBridge:
    return load(tiny(name), tokenizer=word_level(WORDS, folder), device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return lambda name: _model(name, folder)


def formula(name: str, bridge: TransformerBridge, layer: int, neuron: int) -> torch.Tensor:
    """Logits of a value vector, from the architecture's own equations and TransformerLens' matrices."""
    v = bridge.W_out[layer, neuron].detach().double()
    own = dict(tiny(name).named_parameters())  # plain transformers
    final = {"gpt2": "transformer.ln_f.weight", "neox": "gpt_neox.final_layer_norm.weight"}.get(
        name, "model.norm.weight"
    )
    gain = torch.ones(WIDTH).double() if name == "olmo" else own[final].detach().double()
    if name in ("gemma2", "gemma3", "olmo2"):
        one = 0 if name == "olmo2" else 1
        v = (one + own[f"model.layers.{layer}.post_feedforward_layernorm.weight"].detach().double()) * v
        gain = one + gain
    if name in ("gpt2", "neox", "olmo"):
        v = v - v.mean()
    return (gain * v) @ bridge.W_U.detach().double()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_formula(name, sign, model):
    bridge = model(name)
    table = promoted(bridge, 2, [5, 40], 7, sign=sign)
    assert list(table["rank"]) == [*range(1, 8)] * 2 and set(table["layer"]) == {2}
    for neuron in (5, 40):
        logits = formula(name, bridge, 2, neuron)
        best = (sign * logits).topk(7).indices
        found = table[table["neuron"] == neuron]
        assert list(found["token"]) == [bridge.tokenizer.decode([token]) for token in best.tolist()]
        assert found["logit"].to_numpy() == pytest.approx(logits[best].numpy(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gemma2", "gemma3", "olmo2")])
def test_a_neuron_that_drowns_the_rest_makes_the_model_say_so(name, model):
    """With a huge coefficient in the last layer, the stream is the value vector: its logits are those promised."""
    bridge, tokens = model(name), rows()

    def drown(coefficients, hook):
        coefficients[..., 11] = 1e6
        return coefficients

    silence = torch.zeros(WIDTH)
    offset = getattr(bridge.ln_final.original_component, "bias", silence)
    with torch.no_grad(), bridge.hooks([(f"blocks.{LAYERS - 1}.mlp.hook_post", drown)]):
        out = bridge(tokens.ids, attention_mask=tokens.attention)
    logits = getattr(out, "logits", out)[0, 3].double()
    logits = logits - ((silence if offset is None else offset).double() @ bridge.W_U.double())
    table = promoted(bridge, LAYERS - 1, 11, VOCABULARY)
    order = logits.argsort(descending=True)
    ours = torch.tensor(table["logit"].to_numpy())
    assert list(table["token"][:5]) == [bridge.tokenizer.decode([token]) for token in order[:5].tolist()]
    assert torch.cosine_similarity(logits[order], ours, dim=0) > 0.9999


def test_value_vectors_are_those_of_transformer_lens(model):
    for name in NAMES:
        found = value_vectors(model(name))
        assert set(found) == set(range(LAYERS))
        assert all(torch.equal(found[layer], model(name).W_out[layer]) for layer in found)


def test_a_norm_of_another_kind_is_refused():
    class Clipped(nn.Module):
        def forward(self, x):
            return x.clamp(-1, 1)

    with pytest.raises(UserError, match="Clipped is neither an RMSNorm nor a LayerNorm"):
        _through(Clipped(), torch.randn(2, WIDTH).double())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 4}, "layer 4: the model has value vectors in layers 0 to 3"),
        ({"layer": -1}, "layer -1"),
        ({"neurons": [0, 48]}, "neuron 48: layer 2 has neurons 0 to 47"),
        ({"neurons": -1}, "neuron -1"),
        ({"k": 97}, "the vocabulary has 96 tokens"),
        ({"k": 0}, "k = 0"),
        ({"sign": 2}, "sign 2"),
    ],
)
def test_what_does_not_exist_is_named(arguments, message, model):
    with pytest.raises(UserError, match=message):
        promoted(model("llama"), **{"layer": 2, "neurons": 0} | arguments)


def test_a_model_without_tokenizer_cannot_name_tokens():
    with pytest.raises(UserError, match="no tokenizer"):
        promoted(before("llama"), 0, 0)
