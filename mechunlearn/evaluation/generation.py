"""Greedy answers: the reference for facts that come without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from ..checking import checked
from ..errors import UserError, check_whole
from ..facts import Fact, Facts, Template, check_length, prompt_tokens
from ..models import hf
from ..models.forward import check_batch_size, check_ids, keeps_logits, measuring, rows_at_once
from ..models.properties import context_of, device_of, tokenizer_of
from ..undoing import as_found


@as_found
@checked
def greedy_answers(
    model: TransformerBridge,
    facts: Facts | Sequence[Fact],
    template: Template | None = None,
    *,
    max_new_tokens: int = 30,
    batch_size: int = 16,
    progress: bool = True,
) -> list[str]:
    """What the model itself says after each prompt: the most probable token, again and again.

    Ends at the end-of-text token or after `max_new_tokens` (30 in arXiv 2410.06606). Only prompts of the
    same length share a batch, so no padding can touch the result. White space around the answers is dropped.

    Args:
        model: what `load` gives (it carries its tokenizer).
        facts: only their prompts are used.
        template: None takes the one of `facts`, or the default for a plain list.
        progress: show a bar where there are several batches.

    Raises:
        UserError: a model without a tokenizer; a prompt that leaves no room for an answer in the context, or holds a
            token beyond the embedding.
    """
    check_whole("max_new_tokens", max_new_tokens, 1)
    check_batch_size(batch_size)
    tokenizer = tokenizer_of(model)
    template = template or (facts.template if isinstance(facts, Facts) else Template())
    groups: dict[int, list[int]] = defaultdict(list)
    context = context_of(model)
    for number, fact in enumerate(facts):
        check_length(fact.id or str(number), fact.prompt, tokenizer, context)
    prompts = [prompt_tokens(fact.prompt, tokenizer, template) for fact in facts]
    for number, ids in enumerate(prompts):
        if context is not None and len(ids) + max_new_tokens > context:
            name, needed = facts[number].id or number, f"{len(ids)} tokens and {max_new_tokens} new ones"
            raise UserError(f"fact {name!r}: {needed} are more than the context of {context}")
        groups[len(ids)].append(number)
    batches = [
        rows[first : first + size]
        for width, rows in groups.items()
        for size in [rows_at_once(model, batch_size, width + max_new_tokens)]
        for first in range(0, len(rows), size)
    ]
    answers = [""] * len(prompts)
    ends = _end_tokens(model, tokenizer)
    with measuring(model):
        for rows in tqdm(batches, desc="greedy answers", disable=not progress or len(batches) < 2, leave=False):
            ids = torch.tensor([prompts[row] for row in rows])
            check_ids(model, ids, [facts[row].id or str(row) for row in rows])
            new = _generate(model, ids, max_new_tokens, ends)
            for row, said in zip(rows, new.tolist(), strict=True):
                stop = next((place for place, token in enumerate(said) if token in ends), len(said))
                answers[row] = tokenizer.decode(said[:stop], skip_special_tokens=True).strip()
    return answers


def _generate(
    model: TransformerBridge, ids: Int[Tensor, "batch pos"], steps: int, ends: set[int]
) -> Int[Tensor, "batch new"]:
    """Greedy continuations, with the keys and values of earlier tokens kept.

    Written out, because `generate` of transformers takes over a checkpoint's own settings (a repetition penalty,
    say), with which the result is no longer the most probable token.
    """
    given, device = ids.shape[1], device_of(model)
    new, kept = ids, {}
    done = torch.zeros(len(ids), dtype=torch.bool)
    last = {"logits_to_keep": 1} if keeps_logits(model) else {}
    for _ in range(steps):
        mask = torch.ones_like(ids).to(device)
        output = hf(model)(new.to(device), attention_mask=mask, use_cache=True, **last, **kept)
        new = output.logits[:, -1].argmax(-1, keepdim=True).cpu()
        ids = torch.cat([ids, new], 1)
        keys_and_values = getattr(output, "past_key_values", None)
        kept = {} if keys_and_values is None else {"past_key_values": keys_and_values}
        new = new if kept else ids  # Mamba and RWKV keep none: they read the text again
        done |= torch.tensor([token in ends for token in ids[:, -1].tolist()])
        if done.all():
            break
    return ids[:, given:]


def _end_tokens(model: TransformerBridge, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends a text, by the tokenizer or by the checkpoint (chat models have several)."""
    own: Any = getattr(hf(model).generation_config, "eos_token_id", None)
    found: list[Any] = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return {int(token) for token in found if token is not None}
