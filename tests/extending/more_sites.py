"""Sites of one's own: hooks of TransformerLens, or parameters by a regular expression."""

from mechunlearn.sites import ACTIVATIONS, PARAMETERS

ACTIVATIONS["attention_keys"] = "blocks.{l}.attn.hook_k"
ACTIVATIONS["attention_keys_and_values"] = "blocks.{l}.attn.hook_k+blocks.{l}.attn.hook_v"
PARAMETERS["first_mlps"] = r"blocks\.[012]\.mlp\."
PARAMETERS["output_projections"] = ("value_vectors", "attention_ov")  # by role, whole roles only
