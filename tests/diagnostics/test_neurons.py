"""Changes of single neurons against the vectors they write, written out."""

import pytest
import torch

from mechunlearn.diagnostics import neuron_changes
from mechunlearn.errors import UserError
from mechunlearn.facts import tokenize

from ..attacks.toys import make_facts, tokenizer, toy
from ..pairs import before, changed

FACTS = make_facts()[:5]


def coefficients(model) -> torch.Tensor:
    """Fact by fact, unpadded, through TransformerLens' own cache: position, layer, neuron."""
    tokens, found = tokenize(FACTS, tokenizer()), []
    for row in range(len(tokens)):
        one = tokens[[row]].trim()
        with torch.no_grad():
            _, cache = model.run_with_cache(one.ids)
        layers = torch.stack([cache[f"blocks.{layer}.mlp.hook_post"][0] for layer in range(4)], dim=1)
        found.append(layers[one.predicts[0]].double())
    return torch.cat(found)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_columns_are_means_over_predicting_positions(name):
    model = toy(name)
    after = changed(model, lambda slot: slot.layer == 1 or slot.path.startswith("blocks.2.mlp.out"), 0.05)
    table = neuron_changes(model, after, FACTS, prompts="own")
    m = [coefficients(which) for which in (model, after)]
    assert len(table) == 4 * 48
    for layer, neuron in ((0, 3), (1, 7), (2, 47), (3, 0)):
        row = table[(table["layer"] == layer) & (table["neuron"] == neuron)].iloc[0]
        v, w = (which.W_out[layer, neuron].detach().double() for which in (model, after))
        a, b = (found[:, layer, neuron] for found in m)
        written = torch.stack([y * w - x * v for x, y in zip(a, b, strict=True)]).norm(dim=1)
        expected = {
            "value_change": (w - v).norm(), "value_cosine": v @ w / (v.norm() * w.norm()),
            "coefficient_before": a.mean(), "coefficient_after": b.mean(),
            "coefficient_change": (a - b).abs().mean(), "write_change": written.mean(),
        }  # fmt: skip
        for column, value in expected.items():
            assert row[column] == pytest.approx(float(value), rel=1e-4, abs=1e-5), (layer, column)
    below = table[table["layer"] == 0]
    assert below["write_change"].max() < 1e-6 and below["value_change"].max() == 0
    above = table[table["layer"] == 3]
    assert above["value_change"].max() == 0 and above["coefficient_change"].min() > 0


def test_a_model_without_tokenizer_is_refused():
    with pytest.raises(UserError, match="no tokenizer"):
        neuron_changes(before("llama"), before("llama"), make_facts())
