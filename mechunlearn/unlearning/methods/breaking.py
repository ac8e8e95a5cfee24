"""Breaking: make what the MLPs write for forget data orthogonal to what they wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ..depth import Place, parameters_in, span
from ..method import Method
from ..step import Seen, Step

FORMS = ("dot", "norm", "cosine")
WHERE = ("mlp_output", "residual")


@dataclass(frozen=True, kw_only=True)
class Breaking(Method):
    """L = γ·mean over blocks and tokens of max(f, x)^p + α·retain, with m the activation now, m⁰ that of the start:

    "dot": x = ⟨m, m⁰⟩/N², "norm": x = ‖m‖/N, "cosine": x = cos(m, m⁰); N = mean ‖m⁰‖ over the tokens of the row.
    "dot" of MLP outputs is MLP breaking, the forget loss of CIR (Sondej & Yang, arXiv 2509.11816); it is near 1 at
    first and 0 where the two are orthogonal or opposed. The other forms, on the residual stream entering each block,
    are its ablations. Blocks 6 to 11 of 32, f = 0, p = 1. Gate, up and down projections are trained, up to the last of
    these blocks. N is published as the mean over the batch, which makes a row's loss depend on its neighbours and
    on how a step is split.

    Attributes:
        form, where: "dot", "norm" or "cosine"; of "mlp_output" or "residual".
        blocks: from the first to before the last; numbers, or shares of the depth.
        floor, power: f and p.
    """

    form: str = "dot"
    where: str = "mlp_output"
    blocks: tuple[Place, Place] = (6 / 32, 12 / 32)
    floor: float = 0.0
    power: float = 1.0
    retain: str = "representation"

    name: ClassVar[str] = "breaking"
    paper: ClassVar[str] = "2509.11816"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("form", FORMS), ("where", WHERE)):
            if getattr(self, name) not in known:
                raise UserError(f"{self.name}: {name}={getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.power <= 0 or (self.floor < 0 and self.power != 1):
            raise UserError(f"{self.name}: power must be above 0, and 1 where the floor is below 0")

    def forget(self, step: Step) -> Float[Tensor, ""]:
        hooks = self._hooks(span(self.blocks, step.n_layers))
        start, seen = step.start("forget", hooks, logits=False), step.see("forget", hooks, logits=False)
        kept = [self._kept(seen, seen.states[hook], start.states[hook]) for hook in hooks]
        return torch.stack([seen.over_tokens(part.clamp(min=self.floor).pow(self.power)) for part in kept]).mean()

    def trained(self, model: TransformerBridge) -> tuple[str, ...]:
        last = span(self.blocks, model.cfg.n_layers)[-1]
        return parameters_in(
            model, range(last + 1), ["mlp_keys", "value_vectors", "expert_keys", "expert_value_vectors"]
        )

    def _hooks(self, layers: range) -> list[str]:
        if self.where == "mlp_output":
            return [f"blocks.{layer}.hook_mlp_out" for layer in layers]
        # What enters a block is what left the one before; what enters the first is fixed.
        return [f"blocks.{layer}.hook_resid_post" for layer in sorted({max(0, layer - 1) for layer in layers})]

    def _kept(
        self, seen: Seen, now: Float[Tensor, "fact pos d"], before: Float[Tensor, "fact pos d"]
    ) -> Float[Tensor, "fact pos"]:
        """x of every token: how much of what was there is there."""
        if self.form == "cosine":
            return F.cosine_similarity(now, before, dim=-1)
        valid = seen.part.valid
        lengths = torch.linalg.vector_norm(before, dim=-1).masked_fill(~valid, 0.0)
        usual = lengths.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)
        if self.form == "norm":
            return torch.linalg.vector_norm(now, dim=-1) / usual
        return (now * before).sum(dim=-1) / usual.square()
