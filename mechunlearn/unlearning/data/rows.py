"""From facts to the rows that unlearning draws its batches from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ... import evaluation
from ...errors import UserError
from ...facts import Fact, Facts, Tokens, fact_of, tokenize, tokenize_texts


@dataclass(frozen=True)
class Rows:
    """All rows that one part of a batch is drawn from.

    Attributes:
        tokens: the rows.
        valid: real tokens without a leading BOS, whose activations are like no other token's.
        groups: places of the rows that make a group; a batch takes as many from each group.
        weight: what a row counts for in every mean.
        fold: the fold of the row's fact; −1 for none.
        start_nll: the summed −log p of each answer under the start model, where the method asks for it.
    """

    tokens: Tokens
    valid: Bool[Tensor, "fact pos"]
    groups: tuple[Int[Tensor, " _"], ...]
    weight: Float[Tensor, " fact"]
    fold: Int[Tensor, " fact"]
    start_nll: Float[Tensor, " fact"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def with_start(self, start: TransformerBridge, size: int) -> Rows:
        """The same rows with their likelihood under the start model, `size` rows in a forward pass."""
        return replace(self, start_nll=-evaluation.score_answers(start, self.tokens, size).logprob)


def fact_rows(
    facts: Facts,
    model: TransformerBridge,
    group: Callable[[Fact], object] = lambda fact: None,  # noqa: ARG005
    weight: Callable[[Fact], float] = lambda fact: 1.0,  # noqa: ARG005
) -> Rows:
    """One row a fact, as it is asked. Facts for which `group` gives the same make a group."""
    tokens = tokenize(facts, model.tokenizer, context=model.cfg.n_ctx)
    kinds = [group(fact) for fact in facts]
    groups = tuple(
        torch.tensor([place for place, found in enumerate(kinds) if found == kind]) for kind in dict.fromkeys(kinds)
    )
    return Rows(
        tokens,
        _valid(tokens, model),
        groups,
        torch.tensor([weight(fact) for fact in facts], dtype=torch.float32),
        torch.tensor([-1 if fact.fold is None else fact.fold for fact in facts]),
    )


def text_rows(texts: Sequence[str], model: TransformerBridge, bos: bool | None = None) -> Rows:
    """One row a passage; every token but the first is to be predicted. `bos` as in the template of the facts."""
    tokens = tokenize_texts(texts, model.tokenizer, context=model.cfg.n_ctx, bos=bos)
    count = len(tokens)
    whole = (torch.arange(count),)
    return Rows(tokens, _valid(tokens, model), whole, torch.ones(count), torch.full((count,), -1))


def _valid(tokens: Tokens, model: TransformerBridge) -> Bool[Tensor, "fact pos"]:
    valid = tokens.attention.bool().clone()
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is not None:
        valid[:, 0] &= tokens.ids[:, 0] != bos
    return valid


def trained(facts: Facts) -> Facts:
    """One row a phrasing that unlearning trains on: every fact by its prompt and its paraphrases."""
    return facts.with_items(replace(fact, held_out=()) for fact in facts).questions("all")


def with_distractors(rows: Facts, seed: int) -> Facts:
    """The same prompts with a wrong answer each: one of the fact's distractors, drawn with `seed`.

    Raises UserError: a fact without distractors.
    """
    generator = torch.Generator().manual_seed(seed)

    def other(fact: Fact) -> str:
        if not fact.distractors:
            raise UserError(
                f"fact '{fact_of(fact.id)}' has no distractors, which this method prefers to the answer: "
                "fill its field `distractors`, or take a method that needs none (NPO, gradient difference)"
            )
        return _pick(fact.distractors, generator)

    answers = [other(fact) for fact in rows]
    return rows.with_answers(answers)


def with_refusals(rows: Facts, refusals: Sequence[str], seed: int) -> Facts:
    """The same prompts answered by one of `refusals` each, drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    answers = [_pick(refusals, generator) for _ in rows]
    return rows.with_answers(answers)


def _pick(choices: Sequence[str], generator: torch.Generator) -> str:
    return choices[int(torch.randint(len(choices), (), generator=generator))]
