"""Circuit Breakers: turn the representations of forget data away from what they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError, check_whole
from ...models.lora import check_rank, lora
from ..depth import Place, boundary
from ..method import Method
from ..step import Step

NUDGE = 1e-4  # size of LoRA's B at first


@dataclass(frozen=True, kw_only=True)
class CircuitBreakers(Method):
    """L = c_s·mean over targets and tokens of relu cos(h, h⁰) + c_r·mean over blocks and retain tokens of ‖h − h⁰‖₂.

    Zou et al., "Improving Alignment and Robustness with Circuit Breakers" (arXiv 2406.04313), Algorithm 1: while t goes
    from 0 to 1, c_s = α·(1 − t/2) falls and c_r = α·t/2 rises, both to α/2 (in the code: step/300, of 150 steps).
    α = 10 as for Llama-3-8B; LoRA of rank 16 on every linear map up to the last target, here without dropout. CIR's
    authors compared themselves with a cosine over all pairs of tokens; here every token has its own. At the start model
    the cosine is at its maximum and has no gradient. Published runs leave it by the rounding of bf16; in float32 LoRA's
    B, usually zero, begins at 1e-4 for that. Full parameters begin where rounding points.

    Attributes:
        forget_weight, retain_weight: α, of either side.
        targets: the places where the residual stream is turned away, by blocks in front of them: 10 and 20 of 32.
        lora_rank: None trains the parameters themselves.
        retain: "own" is the term above.
    """

    forget_weight: float = 10.0
    retain_weight: float = 10.0
    retain: str = "own"
    targets: tuple[Place, ...] = (10 / 32, 20 / 32)
    lora_rank: int | None = 16
    lora_alpha: int = 16

    name: ClassVar[str] = "circuit_breakers"
    paper: ClassVar[str] = "2406.04313"
    has_own_retain: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise UserError(f"{self.name}: there are no targets")
        if self.lora_rank is not None:
            check_whole(f"{self.name}: lora_rank", self.lora_rank, 1)
        check_whole(f"{self.name}: lora_alpha", self.lora_alpha, 1)

    def check(self, model: TransformerBridge) -> None:
        super().check(model)
        self._places(model.cfg.n_layers)
        if self.lora_rank is not None:
            check_rank(model, self.lora_rank)

    @property
    def trains_adapters(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.lora_rank is not None

    def weights(self, progress: float) -> tuple[float, float]:
        return self.forget_weight * (1 - progress / 2), self.retain_weight * progress / 2

    def forget(self, step: Step) -> Float[Tensor, ""]:
        hooks = [f"blocks.{place - 1}.hook_resid_post" for place in self._places(step.n_layers)]
        start, seen = step.start("forget", hooks, logits=False), step.see("forget", hooks, logits=False)
        cosines = [F.cosine_similarity(seen.states[hook], start.states[hook], dim=-1) for hook in hooks]
        return torch.stack([seen.over_tokens(cosine.relu()) for cosine in cosines]).mean()

    def hold(self, step: Step, kind: str) -> Float[Tensor, ""]:
        if self.retain != "own":
            return super().hold(step, kind)
        hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(step.n_layers)]
        start, seen = step.start(kind, hooks, logits=False), step.see(kind, hooks, logits=False)
        moved = [torch.linalg.vector_norm(seen.states[hook] - start.states[hook], dim=-1) for hook in hooks]
        return torch.stack([seen.over_tokens(distance) for distance in moved]).mean()

    @contextmanager
    def adapted(self, model: TransformerBridge, seed: int) -> Iterator[list[nn.Parameter] | None]:
        if self.lora_rank is None:
            yield None
            return
        n_layers = model.cfg.n_layers
        layers = range(min(self._places(n_layers)[-1] + 1, n_layers))  # the code adapts the block behind it as well
        with lora(model, self.lora_rank, self.lora_alpha, layers, seed) as parameters:
            generator = torch.Generator().manual_seed(seed)
            for parameter in parameters:
                if not parameter.any():  # B
                    parameter.data.copy_(NUDGE * torch.randn(parameter.shape, generator=generator))
            yield parameters

    def _places(self, n_layers: int) -> list[int]:
        """The targets in order, each once, behind one block at least: in front of the first, nothing can turn."""
        return sorted({max(1, boundary(place, n_layers)) for place in self.targets})
