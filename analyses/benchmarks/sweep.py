"""How fast is a sweep, against the tools that people use today, in one process, on one bridge, with equal numbers?

    python analyses/benchmarks/sweep.py [--json FILE] [--repeats 3] [--only maps|windows]

maps      layer × position maps of residual stream, attention output and MLP output, against TransformerLens' own
          `patching.get_act_patch_*` under `no_grad`; batch 1 and 16.
windows   the default sites in windows of five layers and in single layers, against one hooked full forward pass (for
          parameters: copy in, forward, copy back) a window, and against the procedure of the paper's notebook: the
          whole state dict copied for every window, all logits. FLOPs are counted and held against the bound: the
          share of blocks at or above each window's start, one pass of each model, the scored unembeddings.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

import mechunlearn as mu
from mechunlearn.dissection import windows as families
from mechunlearn.dissection.patches import Patch, patches
from mechunlearn.dissection.sweep import Sweep
from mechunlearn.facts import Tokens, tokenize
from mechunlearn.models import compare, slots
from mechunlearn.sites import DEFAULT, resolve

MAPS = {
    "residual": patching.get_act_patch_resid_pre,
    "attention_output": patching.get_act_patch_attn_out,
    "mlp_output": patching.get_act_patch_mlp_out,
}
FAMILIES = {"sliding(5)": families.sliding(5), "single": families.single()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of short rows, in turn; the median counts")
    parser.add_argument("--only", choices=("maps", "windows"))
    options = parser.parse_args()
    threads = torch.get_num_threads()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, {threads} threads"
    figures: dict[str, Any] = {"machine": machine, "rows": []}
    print(machine)
    for name, make in {"llama-12": random_pair, "organism": organism_pair}.items():
        before, after = make()
        if options.only != "windows":
            for batch in (1, 16):
                long = name == "llama-12" and batch > 1  # minutes a run: once is enough to tell
                figures["rows"].append(maps(name, before, after, batch, 1 if long else options.repeats))
        if options.only != "maps":
            tokens = organism_tokens(before) if name == "organism" else random_tokens(before, 64)
            for family in FAMILIES:
                repeats = 1 if name == "llama-12" else options.repeats
                figures["rows"].append(window_sweep(name, before, after, tokens, family, repeats))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def random_pair() -> tuple[TransformerBridge, TransformerBridge]:
    """A random 12-layer Llama (width 256, 1024 neurons a layer, 8192 tokens) and a copy with every weight moved."""
    config = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=64, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    before = mu.load(LlamaForCausalLM(config).eval(), device="cpu")
    return before, moved(before)


def organism_pair() -> tuple[TransformerBridge, TransformerBridge]:
    before = mu.load("organism", device="cpu")
    return before, moved(before)


@torch.no_grad()
def moved(before: TransformerBridge) -> TransformerBridge:
    """A copy whose every weight is moved by a tenth of its spread, as fine-tuning moves all of them."""
    after = mu.clone(before)
    generator = torch.Generator().manual_seed(1)
    for slot in slots(after):
        noise = torch.randn(slot.tensor.shape, generator=generator)
        slot.tensor.add_(0.1 * slot.tensor.std() * noise if slot.tensor.dim() > 1 else 0.01 * noise)
    return after


def random_tokens(model: TransformerBridge, rows: int, length: int = 24) -> Tokens:
    """Prompts of `length` random tokens whose last position predicts one more."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, model.cfg.d_vocab, (rows, length + 1), generator=generator)
    predicts, answers = (torch.zeros_like(ids, dtype=torch.bool) for _ in range(2))
    predicts[:, -2], answers[:, -1] = True, True
    return Tokens(ids, torch.ones_like(ids), predicts, answers, tuple(map(str, range(rows))))


def organism_tokens(model: TransformerBridge) -> Tokens:
    return tokenize(mu.Facts.builtin("organism").forget, model.tokenizer)


def maps(name: str, before: TransformerBridge, after: TransformerBridge, batch: int, repeats: int) -> dict[str, Any]:
    """Three layer × position maps: TransformerLens' functions against one sweep."""
    tokens = random_tokens(before, batch)
    prompt = tokens.ids[:, :-1]
    chosen = patches(
        [resolve(site, after) for site in MAPS], [families.single()], after.cfg.n_layers, range(prompt.shape[1])
    )
    sweep = Sweep(before, after, chosen, compare(before, after).different, "each")

    def theirs() -> Tensor:
        with torch.no_grad():
            donor, cache = before.run_with_cache(prompt)
            wanted = donor[:, -1].double()
            metric = partial(_distance, wanted)
            return torch.stack([patch(after, prompt, cache, metric) for patch in MAPS.values()])

    def ours() -> Tensor:
        distances = _distances(sweep, tokens).mean(1)
        return distances.reshape(len(MAPS), after.cfg.n_layers, -1)

    row = _compare(ours, theirs, repeats)
    row = {"kind": "maps", "model": name, "batch": batch, "cells": len(chosen), "against": "TransformerLens"} | row
    print(
        f"maps     {name:9} batch {batch:2}: {row['speed_up']:.1f} times as fast as TransformerLens, "
        f"largest difference {row['difference']:.1e}"
    )
    return row


def _distance(wanted: Tensor, logits: Tensor) -> Tensor:
    return (logits[:, -1].double() - wanted).square().mean().float()


def window_sweep(
    name: str, before: TransformerBridge, after: TransformerBridge, tokens: Tokens, family: str, repeats: int
) -> dict[str, Any]:
    """All default sites in one family of windows: a full forward pass a window against one sweep."""
    chosen = patches([resolve(site, after) for site in DEFAULT], [FAMILIES[family]], after.cfg.n_layers)
    sweep = Sweep(before, after, chosen, compare(before, after).different, max_tokens=8192)

    def ours() -> Tensor:
        return _distances(sweep, tokens)

    theirs = partial(full_passes, before, after, tokens, chosen)
    row = _compare(ours, theirs, repeats)
    with FlopCounterMode(display=False) as counted:
        ours()
    one_pass = full_pass_flops(before, tokens)
    bound = flop_bound(before, tokens, chosen, one_pass)
    allowed = one_pass * (len(chosen) + 1) / bound  # the full passes: one a patch, and the donor's
    sample = chosen[:: max(1, len(chosen) // 8)]  # the paper's procedure costs the same for every window of a site
    paper = _seconds(partial(paper_passes, before, after, tokens, sample)) * len(chosen) / len(sample)
    row |= {
        "flops_over_bound": counted.get_total_flops() / bound,
        "allowed_speed_up": allowed,
        "share_of_allowed": row["speed_up"] / allowed,
        "paper_speed_up": paper / row["seconds_ours"],
    }
    row = {"kind": "windows", "model": name, "family": family, "facts": len(tokens), "patches": len(chosen)} | row
    print(
        f"windows  {name:9} {family:10}: {row['speed_up']:.2f} times as fast as full passes (the bound allows "
        f"{row['allowed_speed_up']:.2f}: {row['share_of_allowed']:.2f} of it), FLOPs {row['flops_over_bound']:.2f} of "
        f"the bound; {row['paper_speed_up']:.1f} times the paper's procedure; difference {row['difference']:.1e}"
    )
    return row


@torch.no_grad()
def _distances(sweep: Sweep, tokens: Tokens) -> Tensor:
    """The squared distance of every patch and fact, patches in their order."""
    found = sweep.measure(tokens)
    return torch.as_tensor(found.loc[found["patch"] >= 0, "mse"].to_numpy()).reshape(-1, len(tokens))


def full_passes(before: TransformerBridge, after: TransformerBridge, tokens: Tokens, chosen: list[Patch]) -> Tensor:
    """One hooked full forward pass a window; parameters copied in and back."""
    wanted, cache = before.run_with_cache(tokens.ids, attention_mask=tokens.attention)
    theirs = {slot.path: slot.tensor for slot in slots(before)}
    rows = []
    for patch in chosen:
        hooks: list[Any] = [(hook, partial(_replace, cache[hook])) for hook in patch.hooks]
        restored = patch.slots(frozenset(theirs)) if patch.site.kind == "parameters" else ()
        own = [slot.tensor.detach().clone() for slot in restored]
        for slot in restored:
            slot.tensor.copy_(theirs[slot.path])
        logits = after.run_with_hooks(tokens.ids, attention_mask=tokens.attention, fwd_hooks=hooks)
        for slot, value in zip(restored, own, strict=True):
            slot.tensor.copy_(value)
        rows.append(_scored_distance(logits, wanted, tokens))
    return torch.stack(rows)


@torch.no_grad()
def paper_passes(before: TransformerBridge, after: TransformerBridge, tokens: Tokens, chosen: list[Patch]) -> None:
    """The notebook's way: for every window the whole state dict, and all logits of both models."""
    theirs = {slot.path: slot.tensor for slot in slots(before)}
    for patch in chosen:
        kept = {slot.path: slot.tensor.detach().clone() for slot in slots(after)}
        wanted, cache = before.run_with_cache(tokens.ids, attention_mask=tokens.attention)
        hooks: list[Any] = [(hook, partial(_replace, cache[hook])) for hook in patch.hooks]
        for slot in patch.slots(frozenset(theirs)) if patch.site.kind == "parameters" else ():
            slot.tensor.copy_(theirs[slot.path])
        logits = after.run_with_hooks(tokens.ids, attention_mask=tokens.attention, fwd_hooks=hooks)
        for slot in slots(after):
            slot.tensor.copy_(kept[slot.path])
        _scored_distance(logits, wanted, tokens)


def _replace(value: Tensor, activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001 - TransformerLens' signature
    return value


def _scored_distance(logits: Tensor, wanted: Tensor, tokens: Tokens) -> Tensor:
    squared = (logits.double() - wanted.double()).square().mean(-1) * tokens.predicts
    return squared.sum(1) / tokens.predicts.sum(1)


def full_pass_flops(model: TransformerBridge, tokens: Tokens) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens.ids, attention_mask=tokens.attention)
    return counter.get_total_flops()


def flop_bound(model: TransformerBridge, tokens: Tokens, chosen: list[Patch], one_pass: float) -> float:
    """The least work with the whole of each block: the blocks at or above each window's start, and what is scored."""
    head = 2 * model.cfg.d_model * model.cfg.d_vocab
    blocks = one_pass - head * tokens.ids.numel()
    scored = head * int(tokens.predicts.sum())
    n_layers = model.cfg.n_layers
    after_all = ("unembedding", "final_norm")
    starts = [n_layers if p.site.name in after_all else max(0, p.first) for p in chosen]
    passes = sum((n_layers - start) / n_layers for start in starts)
    return blocks * (passes + 2) + scored * (len(chosen) + 2)


def _compare(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Median seconds of both sides, timed in turn, and how far their numbers are apart."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    a, b = torch.empty(0), torch.empty(0)
    for _ in range(repeats):
        began = time.perf_counter()
        a = ours()
        between = time.perf_counter()
        b = theirs()
        times["ours"].append(between - began)
        times["theirs"].append(time.perf_counter() - between)
    ratios = [t / o for o, t in zip(times["ours"], times["theirs"], strict=True)]
    return {
        "seconds_ours": statistics.median(times["ours"]),
        "seconds_theirs": statistics.median(times["theirs"]),
        "speed_up": statistics.median(ratios),
        "speed_up_low": min(ratios),
        "speed_up_high": max(ratios),
        "repeats": repeats,
        "difference": float((a - b).abs().max() / b.abs().max()),
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
