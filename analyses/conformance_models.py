"""Tiny configurations of every kind of language model that transformers builds and TransformerLens may wrap.

A recipe is a model type of transformers with what differs from COMMON. `down` finds the Hugging Face names of the MLP's
last matrix (of all experts, where there are experts) in one block: where the planted change is put. It is written by
hand, so that nothing of the package decides where its own test puts the change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, LAYERS, MIDDLE = 96, 4, 2
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}  # fmt: skip
DOWN = (
    r"(mlp|feed_forward|moe|experts|ffn|layers\.\d+).*\.(down_proj|w2|fc2|c_proj|dense_4h_to_h|fc_out|output_linear)\b"
)
STATES: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}


@dataclass(frozen=True)
class Recipe:
    """A model type, what differs from `COMMON`, and what of COMMON its configuration does not take."""

    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    down: str = DOWN


def _mla(**more: Any) -> dict[str, Any]:
    """Latent attention, small."""
    return EXPERTS | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
                      "v_head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
                      "n_shared_experts": 1, "num_key_value_heads": 4} | more  # fmt: skip


MIXER = r"mixer\.out_proj"
FALCON = ("head_dim", "num_key_value_heads", "intermediate_size")
RECIPES: dict[str, Recipe] = {
    # Gated MLPs.
    **{kind: Recipe(kind) for kind in (
        "llama", "mistral", "ministral3", "qwen2", "qwen3", "olmo", "olmo2", "olmo3", "phi3", "gemma", "gemma2",
        "gemma3_text", "vaultgemma", "cohere", "cohere2", "glm", "glm4", "granite", "smollm3", "stablelm", "seed_oss",
        "ernie4_5", "exaone4", "hunyuan_v1_dense", "bitnet", "hrm_text",
    )},
    "llama, tied": Recipe("llama", {"tie_word_embeddings": True}),
    "llama, biases": Recipe("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, one key head": Recipe("llama", {"num_key_value_heads": 1}),
    "mistral, window of 6": Recipe("mistral", {"sliding_window": 6}),
    "granite, scaled residuals": Recipe("granite", {"residual_multiplier": 0.3, "embedding_multiplier": 2.0,
                                                    "logits_scaling": 3.0, "attention_multiplier": 0.2}),
    "cohere, scaled logits": Recipe("cohere", {"logit_scale": 0.25, "use_qk_norm": True}),
    "stablelm, parallel": Recipe("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    # MLPs without a gate.
    **{kind: Recipe(kind) for kind in ("apertus", "arcee", "jais2", "nanochat", "nemotron", "phi", "starcoder2")},
    "gpt2": Recipe("gpt2"),
    "gpt_bigcode": Recipe("gpt_bigcode"),
    "gpt_neo": Recipe("gpt_neo", {"attention_types": [[["global", "local"], 2]], "num_layers": LAYERS,
                                  "num_heads": 4, "window_size": 6}),
    "gpt_neox": Recipe("gpt_neox", {"rotary_pct": 0.5}),
    "gpt_neox, one after the other": Recipe("gpt_neox", {"use_parallel_residual": False}),
    "gptj": Recipe("gptj", {"rotary_dim": 4}),
    "codegen": Recipe("codegen", {"rotary_dim": 4}),
    "openai-gpt": Recipe("openai-gpt"),
    "opt": Recipe("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt, no final norm (350m)": Recipe("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16,
                                                "do_layer_norm_before": False}),
    "xglm": Recipe("xglm", {"d_model": 32, "ffn_dim": 48, "attention_heads": 4, "num_layers": LAYERS}),
    "bloom": Recipe("bloom", {"n_layer": LAYERS, "n_head": 4}),
    "mpt": Recipe("mpt", {"d_model": 32, "n_layers": LAYERS, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
                  down=r"ffn\.down_proj"),
    "falcon": Recipe("falcon", {"multi_query": True, "parallel_attn": True}, FALCON),
    "falcon, alibi": Recipe("falcon", {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
                            FALCON),
    "falcon, two norms (40b)": Recipe("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, FALCON),
    # Mixtures of experts.
    **{kind: Recipe(kind, EXPERTS) for kind in (
        "mixtral", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "minimax_m2", "ernie4_5_moe", "flex_olmo",
        "glm4_moe", "afmoe",
    )},
    "phimoe": Recipe("phimoe", EXPERTS),
    "qwen2_moe": Recipe("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen2_moe, every other dense": Recipe("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 24,
                                                                   "decoder_sparse_step": 2}),
    "deepseek_v2": Recipe("deepseek_v2", _mla(topk_method="greedy"), ("head_dim",)),
    "deepseek_v3": Recipe("deepseek_v3", _mla(), ("head_dim",)),
    "glm4_moe_lite": Recipe("glm4_moe_lite", _mla(), ("head_dim",)),
    "youtu": Recipe("youtu", _mla(), ("head_dim",)),
    "llama4_text": Recipe("llama4_text", EXPERTS | {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 2,
                                                    "attention_chunk_size": 16}),
    "jetmoe": Recipe("jetmoe", EXPERTS | {"kv_channels": 8}, down=r"mlp\.output_linear"),
    # States and convolutions beside or in place of attention.
    "mamba": Recipe("mamba", {"state_size": 4}, down=MIXER),
    "mamba2": Recipe("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}, down=MIXER),
    "falcon_mamba": Recipe("falcon_mamba", {"state_size": 4}, down=MIXER),
    "rwkv": Recipe("rwkv", {"attention_hidden_size": 32}, down=r"feed_forward\.value"),
    "bamba": Recipe("bamba", STATES | {"attn_layer_indices": [1, 3]}),
    "falcon_h1": Recipe("falcon_h1", STATES | {"mamba_d_ssm": 64}),
    "granitemoehybrid": Recipe("granitemoehybrid", EXPERTS | STATES | {"shared_intermediate_size": 24,
                               "layer_types": ["mamba", "attention", "mamba", "attention"]}),
    "jamba": Recipe("jamba", EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
                                        "mamba_dt_rank": 4, "use_mamba_kernels": False}),
    "lfm2": Recipe("lfm2", {"layer_types": ["conv", "full_attention", "conv", "full_attention"],
                            "block_multiple_of": 8, "block_auto_adjust_ff_dim": False}),
    "recurrent_gemma": Recipe("recurrent_gemma", {"lru_width": 32, "attention_window_size": 16}),
    "qwen3_next": Recipe("qwen3_next", EXPERTS | {"linear_num_key_heads": 2, "linear_num_value_heads": 4,
                         "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                         "shared_expert_intermediate_size": 24}),
    "qwen3_5_text": Recipe("qwen3_5_text", {"linear_num_key_heads": 2, "linear_num_value_heads": 4,
                           "linear_key_head_dim": 8, "linear_value_head_dim": 8}),
    "qwen3_5_moe_text": Recipe("qwen3_5_moe_text", EXPERTS | {"linear_num_key_heads": 2, "linear_num_value_heads": 4,
                               "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                               "shared_expert_intermediate_size": 24}),
    "olmo_hybrid": Recipe("olmo_hybrid"),
    # Not a causal language model from left to right, or built for something else.
    "bert": Recipe("bert", {"is_decoder": True}, down=r"layer\.\d+\.output\.dense"),
    "modernbert-decoder": Recipe("modernbert-decoder", down=r"mlp\.Wo"),
}  # fmt: skip


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model of this recipe, its weights large enough that every part of it matters.

    Another seed gives other weights of the same shapes.
    """
    recipe = RECIPES[name]
    known = AutoConfig.for_model(recipe.kind)
    kept = {key: value for key, value in COMMON.items() if hasattr(known, key) and key not in recipe.without}
    config = AutoConfig.for_model(recipe.kind, **(kept | recipe.changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    assert size < 2_000_000, f"{name} was meant to be tiny and has {size:,} parameters"
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.add_(0.1 * noise) if parameter.dim() == 1 else parameter.copy_(0.2 * noise)
    return model
