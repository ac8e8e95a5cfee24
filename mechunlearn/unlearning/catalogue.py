"""Every method by name, with its defaults."""

from __future__ import annotations

from .method import Method
from .methods.dpo import DPO, RefusalDPO
from .methods.gradient_ascent import GradientAscent
from .methods.gradient_difference import GradientDifference
from .methods.npo import NPO

METHODS: dict[str, Method] = {
    "gradient_ascent": GradientAscent(),
    "gradient_difference": GradientDifference(),
    "gradient_ascent_kl": GradientDifference(retain="kl"),
    "npo": NPO(),
    "npo_kl": NPO(retain="kl"),
    "dpo": DPO(),
    "idk_dpo": RefusalDPO(),
}
