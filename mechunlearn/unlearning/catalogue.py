"""Every method by name, with its defaults."""

from __future__ import annotations

from .method import Method
from .methods.breaking import Breaking
from .methods.cir import CIR
from .methods.circuit_breakers import CircuitBreakers
from .methods.dpo import DPO, RefusalDPO
from .methods.gradient_ascent import GradientAscent
from .methods.gradient_difference import GradientDifference
from .methods.idk import IDK
from .methods.npo import NPO
from .methods.rmu import RMU
from .methods.simnpo import SimNPO
from .methods.undial import UNDIAL
from .methods.wga import WGA

METHODS: dict[str, Method] = {
    "gradient_ascent": GradientAscent(),
    "gradient_difference": GradientDifference(),
    "gradient_ascent_kl": GradientDifference(retain="kl"),
    "wga": WGA(),
    "npo": NPO(),
    "npo_kl": NPO(retain="kl"),
    "simnpo": SimNPO(),
    "dpo": DPO(),
    "idk_dpo": RefusalDPO(),
    "idk": IDK(),
    "undial": UNDIAL(),
    "rmu": RMU(),
    "rmu_split": RMU(vectors="per_fold", entries="normal"),
    "circuit_breakers": CircuitBreakers(),
    "mlp_breaking": Breaking(),
    "norm_breaking": Breaking(form="norm", where="residual"),
    "cosine_breaking": Breaking(form="cosine", where="residual"),
    "cir": CIR(),
    "repselect": CIR(objective=NPO(), collapse="soft", activations=0.125, gradients=0.125),
    "norm_limited_circuit_breakers": CIR(
        objective=CircuitBreakers(lora_rank=None), activations=0, gradients=0, step_norm=0.002
    ),
}
