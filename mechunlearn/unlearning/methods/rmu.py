"""RMU: send the residual stream of forget data to a random direction, and keep that of other data where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...checking import check_number
from ...errors import UserError
from ..data.rows import Rows
from ..depth import Place, block, parameters_in
from ..lengths import mean_length
from ..method import Method
from ..retain import distance
from ..step import Step

VECTORS = ("shared", "per_fold", "orthogonal")
ENTRIES = ("uniform", "normal")


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """L = γ·mean over tokens of ‖h − c·u‖²/d + α·(mean over retain tokens of ‖h − h⁰‖²/d), h behind block ℓ.

    Li et al., "The WMDP Benchmark" (arXiv 2403.03218): their recipe for Zephyr-7B, ℓ = 7 of
    32, c = 6.5, α = 1200; the code's own defaults are c = 20, α = 100. Value vectors of blocks ℓ−2 to ℓ are trained.
    c is a length in the residual stream, so it must suit the model: where it is not given, it is `relative` times the
    mean ‖h⁰‖ over the tokens to forget, measured once in the model before, for all stages of a layered run. Adaptive
    RMU (Dang et al., arXiv 2408.06223) takes each token's own ‖h⁰‖, times 5. BOS and padding do not count.

    Attributes:
        layer: ℓ, a number or a share of the depth.
        steering: c; None: by `relative`.
        relative: c in mean ‖h⁰‖. On the organism 3.44 makes c = 6.5.
        vectors: "shared": one u for all; "per_fold": one for each fold of the facts (RMU-Split of arXiv 2505.09500);
            "orthogonal": the same, made orthogonal in the order of the folds.
        entries: of u before it is scaled to length 1: "uniform" in [0, 1), as published, where two vectors have an
            expected cosine of 0.75; "normal", where it is 0.
        retain: "own" is the term above.
    """

    retain_weight: float = 1200.0
    retain: str = "own"
    layer: Place = 7 / 32
    steering: float | None = None
    relative: float = 3.44
    vectors: str = "shared"
    entries: str = "uniform"

    name: ClassVar[str] = "rmu"
    paper: ClassVar[str] = "2403.03218"
    has_own_retain: ClassVar[bool] = True
    stronger: ClassVar[str] = "relative (or steering), learning_rate or steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("vectors", VECTORS), ("entries", ENTRIES)):
            if getattr(self, name) not in known:
                raise UserError(f"{self.name}: {name}={getattr(self, name)!r} is not one of {', '.join(known)}")

        for name in ("relative", "steering"):
            if getattr(self, name) is not None:
                check_number(f"{self.name}: {name}", getattr(self, name), above=0)

    def fitted(self, start: TransformerBridge, forget: Rows, size: int) -> Method:
        if self.steering is not None:
            return self
        return replace(self, steering=self.relative * mean_length(start, forget, self._hook(start.cfg.n_layers), size))

    def forget(self, step: Step) -> Float[Tensor, ""]:
        """The forget term.

        Raises:
            UserError: no length to steer to: none was given, and none measured (`fitted`).
        """
        if self.steering is None:
            raise UserError(f"{self.name}: steering is not measured yet; call `fitted`, or give a length")
        hook = self._hook(step.n_layers)
        seen = step.see("forget", [hook], logits=False)
        goal = self.steering * self.directions(seen.part.fold, step.d_model, step.seed)
        off = seen.states[hook] - goal[:, None, :].to(seen.states[hook])
        return seen.over_tokens(reduce(off.square(), "fact pos d -> fact pos", "mean"))

    def hold(self, step: Step, kind: str) -> Float[Tensor, ""]:
        if self.retain != "own":
            return super().hold(step, kind)
        return distance(step, kind, [self._hook(step.n_layers)])

    def trained(self, model: TransformerBridge) -> tuple[str, ...]:
        last = block(self.layer, model.cfg.n_layers)
        return parameters_in(model, range(max(0, last - 2), last + 1), ["value_vectors", "expert_value_vectors"])

    def directions(self, fold: Int[Tensor, " fact"], width: int, seed: int) -> Float[Tensor, "fact width"]:
        """u of each fact, drawn with `seed`; facts without a fold share the first of all draws with "shared".

        Raises:
            UserError: more folds than the width has orthogonal directions.
        """
        place = torch.zeros_like(fold) if self.vectors == "shared" else fold + 1
        return self._draw(int(place.max()) + 1, width, seed).to(fold.device)[place]

    def _draw(self, count: int, width: int, seed: int) -> Float[Tensor, "count width"]:
        """The first directions of an endless row, so that a later fold does not change those before it."""
        if self.vectors == "orthogonal" and count > width:
            raise UserError(f"{self.name}: {count} orthogonal vectors do not fit into a residual stream of {width}")
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand if self.entries == "uniform" else torch.randn
        drawn: list[Tensor] = []
        for _ in range(count):
            fresh = draw(width, generator=generator, dtype=torch.float64)
            if self.vectors == "orthogonal":
                for _ in range(2):  # once is exact on paper, twice in floating point
                    for known in drawn:
                        fresh = fresh - known * (known * fresh).sum()
            drawn.append(fresh / fresh.norm())
        return torch.stack(drawn)

    def _hook(self, n_layers: int) -> str:
        return f"blocks.{block(self.layer, n_layers)}.hook_resid_post"
