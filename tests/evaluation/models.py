"""A tiny random Llama with a real tokenizer, and the plain model beneath it."""

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

from mechunlearn.models import load

from ..facts.tokenizers import byte_level_bos


def plain(seed: int = 0, scale: float = 0.3) -> LlamaForCausalLM:
    """Random weights, large enough that its distributions are far from uniform."""
    tokenizer = byte_level_bos()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=scale)
    return model


def bridge(seed: int = 0) -> TransformerBridge:
    """The same, as `load` gives it."""
    return load(plain(seed), tokenizer=byte_level_bos(), device="cpu")
