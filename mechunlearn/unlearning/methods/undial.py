"""UNDIAL: learn from the start model, whose logits for the answer are turned down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...checking import check_number
from ..method import Method
from ..step import Step


@dataclass(frozen=True, kw_only=True)
class UNDIAL(Method):
    """L = γ·mean over answer tokens of CE(softmax(z⁰ − β·onehot(y)), softmax(z)), z⁰ the start model's logits.

    Dong et al., "UNDIAL: Self-Distillation with Adjusted Logits" (arXiv 2402.10052); β = 10, and nothing is retained
    (α = 0): away from the answers the teacher is the model itself. open-unlearning averages over prompt and padding
    too, where its label −100 turns down an unrelated entry of the vocabulary; neither is done here.
    """

    retain_weight: float = 0.0
    beta: float = 10.0

    name: ClassVar[str] = "undial"
    paper: ClassVar[str] = "2402.10052"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(f"{self.name}: beta", self.beta, least=0)

    def forget(self, step: Step) -> Float[Tensor, ""]:
        targets = self._teacher(step)
        seen = step.see("forget")
        return seen.over_answers(F.cross_entropy(seen.scored, targets, reduction="none"))

    def _teacher(self, step: Step) -> Float[Tensor, "scored vocab"]:
        start = step.start("forget")
        dial = torch.full_like(start.scored[:, :1], -self.beta)
        return start.scored.scatter_add(1, start.part.tokens.targets[:, None], dial).softmax(dim=-1)
