"""The sweep against the plain full forward pass: every site, every architecture, every window."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from mechunlearn.dissection import metrics as metrics_module, sweep as sweep_module, windows
from mechunlearn.dissection.patches import patches
from mechunlearn.dissection.sweep import Sweep
from mechunlearn.facts import Tokens, paper_positions
from mechunlearn.models import compare, slots
from mechunlearn.models.forward import record, unembed
from mechunlearn.sites import available, resolve

from ..architectures import LAYERS, NAMES
from ..pairs import before, changed, rows, snapshot

EXTRA = (
    "mlp_coefficients+attention_output", "mlp_coefficients[3,17]", "head_output[1]", "value_vectors[5,9]",
    "blocks.{l}.attn.hook_q", r"layers\.1\.|h\.1\.", "residual[2]", "mlp_coefficients[1:17,3:0-9]",
    "value_vectors[1:5,3:0-9]", "head_output[0]+mlp_coefficients[2:3-20]",
)  # fmt: skip
WINDOWS = windows.given([(0, 1), (1, 3), (2, 2), (3, 3), (0, 3)])  # clipped, inner, single, last, all


def put(value, activation, hook, where=None):
    return value if where is None else torch.where(where, value, activation)


@torch.no_grad()
def donor_cache(donor, tokens):
    return donor.run_with_cache(tokens.ids, attention_mask=tokens.attention)[1]


@torch.no_grad()
def full_forward(model, donor, cache, patch, tokens, where=None):
    """The oracle: TransformerLens' own hooked pass over all layers; parameters copied in and back."""
    hooks = []
    for name in patch.hooks:
        chosen = torch.ones_like(cache[name], dtype=torch.bool)
        if name in patch.site.select:
            chosen[:] = False
            axis = 2 if name.endswith("hook_z") else -1
            chosen.index_fill_(axis, torch.tensor(patch.site.select[name]), True)
        if where is not None:
            chosen &= where.reshape(*where.shape, *[1] * (chosen.dim() - 2))
        hooks.append((name, partial(put, cache[name], where=chosen)))
    theirs = {slot.path: slot for slot in slots(donor)}
    own = []
    for slot in patch.slots(frozenset(theirs)) if patch.site.kind == "parameters" else ():
        own.append((slot.tensor, slot.tensor.clone()))
        value = theirs[slot.path].tensor
        if slot.path in patch.site.select:
            index = torch.tensor(patch.site.select[slot.path])
            if value.dim() > 1:
                slot.tensor.index_copy_(slot.features, index, value.index_select(slot.features, index))
        else:
            slot.tensor.copy_(value)
    logits = model.run_with_hooks(tokens.ids, attention_mask=tokens.attention, fwd_hooks=hooks)
    for parameter, value in own:
        parameter.copy_(value)
    return logits[tokens.predicts]


@torch.no_grad()
def all_logits(sweep, tokens):
    found = {}
    ((passes, _),) = sweep.record(tokens)
    for numbers, logits, _ in sweep.patched(passes):
        found |= dict(zip(numbers, logits, strict=True))
    return passes, found


@pytest.mark.parametrize("name", NAMES)
def test_every_site_equals_the_full_forward_pass(name):
    donor, model = before(name), changed(before(name), lambda _: True, 0.03)
    tokens = rows()
    sites = [site for site, there in available(model).items() if there] + list(EXTRA)
    chosen = patches([resolve(site, model) for site in sites], [WINDOWS], LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, max_tokens=400)
    cache = donor_cache(donor, tokens)
    passes, found = all_logits(sweep, tokens)
    assert set(found) == set(range(len(chosen)))
    scale = float(passes.plain.abs().max())
    moved = 0
    for number, patch in enumerate(chosen):
        expected = full_forward(model, donor, cache, patch, tokens)
        assert float((found[number] - expected).abs().max()) <= 1e-5 * scale, (patch.site.name, patch.first, patch.last)
        moved += float((expected - passes.plain).abs().max()) > 1e-3 * scale
    assert moved > 0.9 * len(chosen)  # the patches really do something


@pytest.mark.parametrize("positions", ["answer", "prompt", [0, 3, 4]])
def test_positions_equal_the_full_forward_pass(positions):
    donor, model = before("llama"), changed(before("llama"), lambda _: True, 0.03)
    tokens = rows()
    sites = ["mlp_coefficients", "attention_output", "residual", "head_output[2]"]
    chosen = patches([resolve(site, model) for site in sites], [windows.sliding(3)], LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, positions)
    where = torch.zeros_like(tokens.predicts)
    if positions == "answer":
        where = tokens.predicts
    elif positions == "prompt":
        where = tokens.attention.bool() & ~tokens.predicts & ~tokens.answers
    else:
        where[:, positions] = True
    cache = donor_cache(donor, tokens)
    passes, found = all_logits(sweep, tokens)
    for number, patch in enumerate(chosen):
        expected = full_forward(model, donor, cache, patch, tokens, where)
        assert float((found[number] - expected).abs().max()) <= 1e-5 * float(passes.plain.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_each_position_equals_the_full_forward_pass(name):
    donor, model = before(name), changed(before(name), lambda _: True, 0.03)
    tokens = rows()
    sites = [
        "residual",
        "attention_output",
        "mlp_output",
        "mlp_coefficients[1]",
        "head_output",
        "blocks.{l}.attn.hook_k",
    ]
    chosen = patches(
        [resolve(site, model) for site in sites], [windows.given([(1, 1), (3, 3), (1, 2)])], LAYERS, range(11)
    )
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, "each")
    cache = donor_cache(donor, tokens)
    passes, found = all_logits(sweep, tokens)
    for number, patch in list(enumerate(chosen))[::5]:
        where = torch.zeros_like(tokens.predicts)
        where[:, patch.position] = True
        expected = full_forward(model, donor, cache, patch, tokens, where)
        scale = float(passes.plain.abs().max())
        assert float((found[number] - expected).abs().max()) <= 1e-5 * scale, (
            patch.site.name,
            patch.first,
            patch.position,
        )


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_maps_equal_transformer_lens_own_patching(name):
    from transformer_lens import patching

    donor, model = before(name), changed(before(name), lambda _: True, 0.03)
    tokens = rows((9, 9), answer=1)
    prompt = tokens.ids[:, :-1]
    sites = {
        "residual": patching.get_act_patch_resid_pre,
        "attention_output": patching.get_act_patch_attn_out,
        "mlp_output": patching.get_act_patch_mlp_out,
    }
    with torch.no_grad():
        wanted, cache = donor.run_with_cache(prompt)
        theirs = [
            patch(model, prompt, cache, lambda logits: (logits - wanted)[:, -1].square().mean())
            for patch in sites.values()
        ]
    chosen = patches([resolve(site, model) for site in sites], [windows.single()], LAYERS, range(8))
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, "each")
    found = sweep.measure(tokens).query("patch >= 0")
    ours = torch.as_tensor(found["mse"].to_numpy()).reshape(-1, len(tokens)).mean(1).reshape(3, LAYERS, 8)
    torch.testing.assert_close(ours.float(), torch.stack(theirs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_does_not_matter(name):
    donor, model = before(name), changed(before(name), lambda _: True, 0.03)
    tokens = rows((12, 7, 9, 11))
    chosen = patches([resolve("mlp_coefficients", model), resolve("residual", model)], [windows.sliding(3)], LAYERS)
    different = compare(donor, model).different
    one = all_logits(Sweep(donor, model, chosen, different, max_tokens=1), tokens)[1]
    many = all_logits(Sweep(donor, model, chosen, different, max_tokens=10**6), tokens)[1]
    for number in one:
        torch.testing.assert_close(one[number], many[number], rtol=1e-5, atol=1e-5 * float(one[number].abs().max()))


def test_padding_does_not_matter():
    donor, model = before("llama"), changed(before("llama"), lambda _: True, 0.03)
    short = rows((7, 7))
    padded = Tokens(
        torch.cat([short.ids, torch.full((2, 5), 50)], 1),
        torch.cat([short.attention, torch.zeros(2, 5, dtype=torch.long)], 1),
        torch.cat([short.predicts, torch.zeros(2, 5, dtype=torch.bool)], 1),
        torch.cat([short.answers, torch.zeros(2, 5, dtype=torch.bool)], 1),
        short.fact_ids,
    )
    chosen = patches([resolve("attention_output", model)], [windows.sliding(3)], LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, "paper")  # "paper" keeps every column
    for number, logits in all_logits(sweep, short)[1].items():
        torch.testing.assert_close(logits, all_logits(sweep, padded)[1][number], rtol=1e-4, atol=1e-4)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Stop])
def test_no_state_is_left_behind(error, monkeypatch):
    from mechunlearn.dissection import patches as module

    donor, model = before("neox"), changed(before("neox"), lambda _: True, 0.03)
    seen = []
    model.blocks[1].mlp.hook_out.add_hook(lambda value, hook: seen.append(1))  # the user's own hook stays
    for each in (donor, model):  # TransformerLens wires hooks of its own at the first pass
        record(each, rows())
    states = snapshot(donor), snapshot(model)
    sites = ["mlp_coefficients", "everything", "value_vectors", "attention_output"]
    chosen = patches([resolve(site, model) for site in sites], [windows.sliding(3)], LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different)
    if error:
        calls = []

        def break_off(*args, **kwargs):
            calls.append(1)
            if len(calls) == 6:
                raise error
            return unembed(*args, **kwargs)

        monkeypatch.setattr(module, "unembed", break_off)
        with pytest.raises(error):
            all_logits(sweep, rows())
        assert len(calls) == 6
    else:
        all_logits(sweep, rows())
    assert (snapshot(donor), snapshot(model)) == states
    assert seen


@pytest.mark.parametrize("where", ["all", "paper"])
def test_no_more_logits_stand_together_than_are_allowed(where, monkeypatch):
    """Facts of a batch, and patches of a pass, are bounded by scored positions x vocabulary; the numbers stay."""
    donor, model = before("llama"), changed(before("llama"), lambda slot: "mlp" in slot.path, 0.05)
    tokens, chosen = rows((9, 7, 9, 8)), patches([resolve("mlp_output", model)], windows.families("single"), LAYERS)
    sweep = Sweep(donor, model, chosen, compare(donor, model).different, where)
    whole = sweep.units(tokens, 64, None, progress=False)
    scored = (tokens.predicts | paper_positions(tokens) if where == "paper" else tokens.predicts).sum(1)
    vocabulary, shapes = model.cfg.d_vocab, []

    class Told(metrics_module.Pair):
        def __init__(self, reference, logits):
            shapes.append(tuple(logits.shape))
            super().__init__(reference, logits)

    monkeypatch.setattr(metrics_module, "Pair", Told)
    for name in ("SCORED_AT_ONCE", "LOGITS_AT_ONCE"):
        monkeypatch.setattr(sweep_module, name, int(scored.max()) * vocabulary)
    parts = sweep.units(tokens, 64, None, progress=False)
    assert {shape[:2] for shape in shapes} == {(1, int(count)) for count in scored}
    shapes.clear()
    monkeypatch.setattr(metrics_module, "COMPARED_AT_ONCE", 2 * vocabulary)  # a long answer is compared in pieces
    pieces = sweep.units(tokens, 64, None, progress=False)
    assert max(shape[0] * shape[1] for shape in shapes) == 2
    for name in ("mse", "kl", "answer_logprob", "rank", "logprob"):
        np.testing.assert_allclose(pieces[name], parts[name], rtol=1e-12, atol=1e-15)
    # An answer whose logits do not fit is scored piece by piece, and its blocks run again for each.
    monkeypatch.setattr(sweep_module, "SCORED_AT_ONCE", vocabulary)
    shapes.clear()
    told = []
    split = pd.concat([sweep.measure(tokens[[row]].trim(), told.append) for row in range(4)], ignore_index=True)
    assert {shape[:2] for shape in shapes} == {(1, 1)}
    assert sum(told) == pytest.approx(4 * LAYERS)
    keys = ["patch", "question"]
    split, parts = (frame.sort_values(keys, ignore_index=True) for frame in (split, parts))
    assert list(split["said"]) == list(parts["said"])
    for name in ("mse", "kl", "answer_logprob", "rank", "logprob"):
        np.testing.assert_allclose(split[name], parts[name], rtol=1e-4, atol=1e-9)
    a, b = (frame.sort_values(keys, ignore_index=True) for frame in (whole, parts))
    pd.testing.assert_frame_equal(a[[*keys, "mse", "rank"]], b[[*keys, "mse", "rank"]], rtol=1e-4)
