"""What a model is: its weights, the configuration that it computes with, and its tokenizer, as short hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .anatomy import slots
from .checkpoint import hf

# Fields of a configuration from which no number is computed: where it came from, who wrote it, what a call gives back.
INERT = frozenset({
    "_name_or_path", "_attn_implementation", "_attn_implementation_internal", "attn_implementation", "architectures",
    "auto_map", "chunk_size_feed_forward", "dtype", "finetuning_task", "id2label", "is_decoder", "label2id",
    "name_or_path", "output_attentions", "output_hidden_states", "problem_type", "return_dict", "tie_word_embeddings",
    "torch_dtype", "transformers_version", "unsloth_version", "use_cache",
})  # fmt: skip
MISSING = "not there"


def fingerprint(model: TransformerBridge) -> dict[str, str | None]:
    """Hashes by which another model is told from this one.

    `weights`: names and values of all parameters that the forward pass reads, and of the tensors that the checkpoint
    holds beside them; `configuration`: its fields, but for those without an effect on any number; `tokenizer`: all that
    it makes tokens and conversations by (None: the model has none).
    """
    return {
        "weights": _weights(model),
        "configuration": _hash(configuration(model)),
        "tokenizer": None if model.tokenizer is None else _hash(_words(model.tokenizer)),
    }


def configuration(model: TransformerBridge) -> dict[str, Any]:
    """The fields of the model's configuration that can enter a computation, those within fields with a dot."""
    ends = getattr(hf(model).generation_config, "eos_token_id", None)
    return _flat({**hf(model).config.to_dict(), "generation": {"eos_token_id": ends}})


def differences(before: TransformerBridge, after: TransformerBridge) -> dict[str, tuple[Any, Any]]:
    """The fields of the two configurations that differ, each with both values."""
    ours, theirs = configuration(before), configuration(after)
    return {
        field: (ours.get(field, MISSING), theirs.get(field, MISSING))
        for field in sorted({*ours, *theirs})
        if ours.get(field, MISSING) != theirs.get(field, MISSING)
    }


def _weights(model: TransformerBridge) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for slot in slots(model):
        _update(digest, slot.path, slot.tensor)
    for prefix, module in hf(model).named_modules():  # what a checkpoint holds beside parameters: sinks, scales
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                _update(digest, f"{prefix}.{name}", buffer)
    return digest.hexdigest()


def _update(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(name.encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _words(tokenizer: Any) -> dict[str, Any]:
    """All that decides which tokens a text becomes. Padding and truncation are of the last call, not of the words."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    return {
        "kind": type(tokenizer).__name__,
        "rules": {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")},
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat": getattr(tokenizer, "chat_template", None),
        "adds": [getattr(tokenizer, name, None) for name in ("add_bos_token", "add_eos_token")],
    }


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in fields.items():
        if name in INERT:
            continue
        if isinstance(value, dict) and value:
            found |= _flat({str(key): part for key, part in value.items()}, f"{prefix}{name}.")
        elif value is not None:  # a field that is not set is as one that is not there
            found[prefix + name] = value
    return found


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
