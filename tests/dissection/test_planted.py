"""Planted changes are found: the site that was changed, in the layer that was changed, and nowhere else."""

import numpy as np
import pytest

from mechunlearn.dissection import windows
from mechunlearn.dissection.metrics import METRICS
from mechunlearn.dissection.patches import patches
from mechunlearn.dissection.sweep import PLAIN, Sweep
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


def distances(sweep, tokens, metric):
    """Of every patch and of the recipient unpatched, fact by fact."""
    found = sweep.measure(tokens).groupby("patch")[metric].apply(list)
    return np.array(found.loc[found.index >= 0].tolist()), np.array(found.loc[PLAIN])


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
    sweep = Sweep(donor, model, chosen, compare(donor, model).different)
    holders = HOLDS[planted] | ({"unembedding"} if planted == "embedding" and name == "gpt2" else set())  # tied
    for metric in METRICS:
        patched, baseline = distances(sweep, rows(), metric)
        recovery = 1 - patched.sum(1) / baseline.sum()
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
    patched, baseline = distances(Sweep(donor, model, chosen, compare(donor, model).different), rows(), "mse")
    recovery = 1 - patched.sum(1) / baseline.sum()
    coefficients, output = recovery[:LAYERS], recovery[LAYERS:]
    assert abs(coefficients).max() <= 1e-3
    assert output[-1] >= 0.999
    assert abs(output[:-1]).max() <= 1e-3
