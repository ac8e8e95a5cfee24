"""CE-U: the model learns what it would say if it could not say the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mechunlearn.unlearning import METHODS, Method, Step


@dataclass(frozen=True, kw_only=True)
class CEU(Method):
    """L = γ·CE(softmax of z without the true token, softmax of z), a mean over answer tokens, + α·what is retained.

    Yang, "CE-U: Cross Entropy Unlearning" (arXiv 2503.01224). No gradient flows through the first softmax. What the
    base class brings: γ and α, four kinds of retention, general text, and checks of the settings.
    """

    name: ClassVar[str] = "ceu"
    paper: ClassVar[str] = "2503.01224"

    def forget(self, step: Step) -> Float[Tensor, ""]:
        seen = step.see("forget")  # a forward pass with gradients; `scored` has a row of logits for each answer token
        others = seen.scored.detach().scatter(1, seen.part.tokens.targets[:, None], -torch.inf)
        return seen.over_answers(F.cross_entropy(seen.scored, others.softmax(dim=1), reduction="none"))


METHODS["ceu"] = CEU()  # so that it has a name on the command line and in settings files
