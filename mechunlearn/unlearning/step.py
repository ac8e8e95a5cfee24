"""What a method's loss may look at: the parts of a batch under the model that changes and under the start model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..models import hf
from ..models.forward import scored_logits
from ..models.hooks import Enough, Hook, hooked
from .data.batches import Part, Piece


@dataclass(frozen=True)
class Seen:
    """One part of a batch after a forward pass.

    `logits` holds one row per True of `part.tokens.predicts`, in reading order, so prompts and padding have no way
    in, whatever ids stand there. `states` are activations by hook name. Both are in fp32 at least (fp64 stays fp64).
    The means are over the whole optimiser step, of which this may be a piece, and weigh each row by `part.weight`.
    """

    part: Part
    logits: Float[Tensor, "scored vocab"] | None
    states: dict[str, Float[Tensor, "fact pos width"]]

    @property
    def scored(self) -> Float[Tensor, "scored vocab"]:
        """The logits that predict answer tokens."""
        assert self.logits is not None, "this pass was asked for states alone"
        return self.logits

    @cached_property
    def rows(self) -> Int[Tensor, " scored"]:
        """The row that each scored position belongs to."""
        return self.part.tokens.predicts.nonzero()[:, 0]

    @cached_property
    def token_nll(self) -> Float[Tensor, " scored"]:
        """−log p of every answer token, in nats."""
        return F.cross_entropy(self.scored, self.part.tokens.targets, reduction="none")

    @cached_property
    def nll(self) -> Float[Tensor, " fact"]:
        """−log p of every answer: the *sum* over its tokens, in nats."""
        return self.token_nll.new_zeros(len(self.part.tokens)).index_add(0, self.rows, self.token_nll)

    @cached_property
    def lengths(self) -> Int[Tensor, " fact"]:
        """Tokens in every answer."""
        return self.part.tokens.predicts.sum(dim=1)

    @property
    def cross_entropy(self) -> Float[Tensor, ""]:
        """Mean −log p of an answer token."""
        return self.over_answers(self.token_nll)

    def over_facts(self, values: Float[Tensor, " fact"]) -> Float[Tensor, ""]:
        """Mean of a value per fact."""
        return (self.part.weight * values).sum() / self.part.divisors.facts

    def over_answers(self, values: Float[Tensor, " scored"]) -> Float[Tensor, ""]:
        """Mean of a value per answer token."""
        return (self.part.weight[self.rows] * values).sum() / self.part.divisors.answers

    def over_tokens(self, values: Float[Tensor, "fact pos"]) -> Float[Tensor, ""]:
        """Mean of a value per token: prompt and answer, without BOS and padding."""
        weighted = self.part.weight[:, None] * values
        # Not a product with the mask: what stands at padding may be anything, even infinite.
        return weighted.masked_fill(~self.part.valid, 0.0).sum() / self.part.divisors.tokens


class Step:
    """One piece of an optimiser step, looked at on demand.

    Attributes:
        progress: the share of the run's steps that is done, for methods that change with time.
        seed: the run's, for what a method draws once (control vectors).
        n_layers, d_model: of the model.
    """

    def __init__(self, model: TransformerBridge, start: TransformerBridge, piece: Piece, seed: int = 0) -> None:
        self._model, self._start, self._parts = model, start, piece.parts
        self.progress, self.seed = piece.progress, seed
        self.n_layers, self.d_model = int(model.cfg.n_layers), int(model.cfg.d_model)

    def has(self, kind: str) -> bool:
        """Whether the batch holds rows of that kind."""
        return kind in self._parts

    def see(self, kind: str, states: Sequence[str] = (), logits: bool = True) -> Seen:
        """Rows of a kind ("forget", "alternative", "retain", "text") under the model, with gradients.

        `states` names hooks whose activations are kept. Without `logits` the pass ends at the deepest of them.
        """
        return look(self._model, self._parts[kind], states, logits)

    @torch.no_grad()
    def start(self, kind: str, states: Sequence[str] = (), logits: bool = True) -> Seen:
        """The same rows under the start model, without gradients."""
        return look(self._start, self._parts[kind], states, logits)


def look(model: TransformerBridge, part: Part, states: Sequence[str] = (), logits: bool = True) -> Seen:
    """One forward pass over a part; logits are computed only in columns that predict some row's answer.

    Raises:
        UserError: a hook that does not fire.
    """
    tokens, saved = part.tokens, {}
    wanted = set(states)

    def keep(name: str) -> Hook:
        def save(tensor: Tensor, *, hook: HookPoint) -> None:  # noqa: ARG001 - TransformerLens passes it by name
            saved[name] = tensor
            if not logits and len(saved) == len(wanted):
                raise Enough

        return save

    scored = None
    with hooked(model, [(name, keep(name)) for name in wanted]), suppress(Enough):
        scored = _precise(scored_logits(model, tokens))
    silent = sorted(wanted - set(saved))
    if silent:
        raise UserError(f"hook {silent[0]} does not fire in {type(hf(model)).__name__}; this method needs it")
    return Seen(part, scored if logits else None, {name: _precise(saved[name]) for name in states})


def _precise(tensor: Tensor) -> Tensor:
    """In fp32 at least: squared norms overflow fp16, and cosines in bf16 have two digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
