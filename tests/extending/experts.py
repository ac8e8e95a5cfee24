"""An architecture whose MLP is another: the experts of Mixtral and its like, and what roles their matrices have."""

from mechunlearn.models.anatomy import NAMED_ROLES

NAMED_ROLES[r"mlp\.experts\.gate_up_proj"] = "mlp_keys"
NAMED_ROLES[r"mlp\.experts\.down_proj"] = "value_vectors"
