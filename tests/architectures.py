"""Tiny randomly initialised models of every architecture that the package promises to hold on.

All share one vocabulary size, depth and width, so that tests can loop over them. Weights are drawn larger than the
libraries' defaults: at initialisation most effects are too small to tell a right number from a wrong one.
"""

import torch
import transformers as hf

VOCABULARY = 96
LAYERS = 4
WIDTH = 32

COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2}
SLIDING = {"sliding_window": 6}  # shorter than the test prompts, so that local attention really is local
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}

CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "mistral": lambda: hf.MistralConfig(**GROUPED, **SLIDING),
    "olmo": lambda: hf.OlmoConfig(**GROUPED),
    "olmo2": lambda: hf.Olmo2Config(**GROUPED),
    "qwen2": lambda: hf.Qwen2Config(**GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED, head_dim=16),
    "gemma2": lambda: hf.Gemma2Config(
        **GROUPED, **SLIDING, **ALTERNATING, head_dim=8, query_pre_attn_scalar=8, hidden_activation="gelu_pytorch_tanh"
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **GROUPED, **SLIDING, **ALTERNATING, head_dim=8, query_pre_attn_scalar=8, hidden_activation="gelu_pytorch_tanh"
    ),
    "phi3": lambda: hf.Phi3Config(**GROUPED),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=64, n_inner=48,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
    "neox": lambda: hf.GPTNeoXConfig(**COMMON, use_parallel_residual=True, rotary_pct=0.5),
}  # fmt: skip
# Whose blocks are called with arguments of odd shapes, or whose logits come about in another way than by norm and head.
ODD = {
    "bloom": lambda: hf.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=4,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
    "mpt": lambda: hf.MptConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, n_layers=LAYERS, n_heads=4, max_seq_len=64, expansion_ratio=2
    ),
    "falcon, alibi": lambda: hf.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, multi_query=False,
        parallel_attn=False, alibi=True, bias=True, ffn_hidden_size=48,
    ),
    "xglm": lambda: hf.XGLMConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, ffn_dim=48, num_layers=LAYERS, attention_heads=4,
        max_position_embeddings=64,
    ),
    "opt": lambda: hf.OPTConfig(**COMMON, ffn_dim=48, word_embed_proj_dim=WIDTH),
    "opt-350m": lambda: hf.OPTConfig(**COMMON, ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "cohere": lambda: hf.CohereConfig(**GROUPED, logit_scale=0.25),
    "granite": lambda: hf.GraniteConfig(**GROUPED, logits_scaling=4.0, residual_multiplier=0.3),
    "mixtral": lambda: hf.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "gpt-oss": lambda: hf.GptOssConfig(
        **GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=6,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
    ),
    "qwen-moe": lambda: hf.Qwen2MoeConfig(  # every other MLP is dense, the others have a shared expert
        **GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=24,
        decoder_sparse_step=2,
    ),
    "mamba": lambda: hf.MambaConfig(**COMMON, state_size=4),
}  # fmt: skip
NAMES = tuple(CONFIGS)


def tiny(name: str, seed: int = 0) -> hf.PreTrainedModel:
    """A random model of this architecture; another seed gives other weights of the same shapes."""
    config = (CONFIGS | ODD)[name]()
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    config.architectures = model.config.architectures = [type(model).__name__]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(
                    noise * (0.5 if parameter.shape[-1] <= VOCABULARY and parameter.shape[0] == VOCABULARY else 0.2)
                )
    return model
