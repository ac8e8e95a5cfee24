"""Planted changes are found: the site that was changed, in the layer that was changed, and nowhere else."""

import pytest

from mechunlearn.dissection import windows
from mechunlearn.dissection.measured import measure_batch
from mechunlearn.dissection.plan import patches
from mechunlearn.dissection.sweep import Sweep
from mechunlearn.models import compare
from mechunlearn.sites import PARAMETERS, available, resolve

from ..architectures import LAYERS, NAMES
from ..pairs import before, changed, rows

LAYER = 2
PLANTED = ("value_vectors", "mlp_keys", "attention_qk", "attention_ov", "embedding", "norms")
HOLDS = {  # which sites contain a planted one
    "value_vectors": {"value_vectors", "block", "everything"},
    "mlp_keys": {"mlp_keys", "block", "everything"},
    "attention_qk": {"attention_qk", "attention", "block", "everything"},
    "attention_ov": {"attention_ov", "attention", "block", "everything"},
    "embedding": {"embedding", "everything"},
    "norms": {"norms", "block", "everything"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("planted", PLANTED)
def test_only_the_planted_change_gives_the_knowledge_back(name, planted):
    donor = before(name)
    if not available(donor)[planted]:
        assert (name, planted) == ("olmo", "norms")  # its norms have no parameters to change
        return

    def chosen_slots(slot):  # of the embeddings the tokens' alone: GPT-2 ties these to the unembedding
        return planted in slot.roles and slot.layer in (LAYER, -1) and not slot.path.startswith("pos_embed")

    model = changed(donor, chosen_slots, 0.5 if planted == "norms" else 0.1)
    sites = [site for site in PARAMETERS if available(donor)[site]]
    chosen = patches([resolve(site, model) for site in sites], [windows.sliding(3), windows.single()], LAYERS)
    measured = measure_batch(Sweep(donor, model, chosen, compare(donor, model).different), rows())
    holders = HOLDS[planted] | ({"unembedding"} if planted == "embedding" and name == "gpt2" else set())  # tied
    for metric, baseline in measured.baseline.items():
        recovery = 1 - measured.distances[metric].sum(1) / baseline.sum()
        assert baseline.min() > 0
        for patch, value in zip(chosen, recovery, strict=True):
            inside = patch.site.name in holders and (not patch.site.layered or patch.first <= LAYER <= patch.last)
            if inside:
                assert value >= 0.99, (patch.site.name, patch.first, patch.last, metric)
            else:
                assert abs(value) <= 0.01, (patch.site.name, patch.first, patch.last, metric)


@pytest.mark.parametrize("name", ["llama", "neox"])
def test_activations_show_where_the_change_comes_through(name):
    """Value vectors changed in one layer: its coefficients cannot bring anything back, its output brings all."""
    donor = before(name)
    model = changed(donor, lambda s: s.path == f"blocks.{LAYERS - 1}.mlp.out.weight")
    chosen = patches([resolve(s, model) for s in ("mlp_coefficients", "mlp_output")], [windows.single()], LAYERS)
    measured = measure_batch(Sweep(donor, model, chosen, compare(donor, model).different), rows())
    recovery = 1 - measured.distances["mse"].sum(1) / measured.baseline["mse"].sum()
    coefficients, output = recovery[:LAYERS], recovery[LAYERS:]
    assert abs(coefficients).max() <= 1e-3
    assert output[-1] >= 0.999
    assert abs(output[:-1]).max() <= 1e-3
