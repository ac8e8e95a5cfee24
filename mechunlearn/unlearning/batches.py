"""What one unlearning step sees: rows to forget, as many to retain, and optionally general text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from .. import evaluation
from ..errors import UserError
from ..facts import Fact, Facts, Tokens
from .losses import Answers, Divisors, Scores, answer_nll


@dataclass(frozen=True)
class Rows:
    """All rows that a part of a batch is drawn from; `reference`: their summed NLL under the start model."""

    tokens: Tokens
    reference: Float[Tensor, " fact"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def with_reference(self, model: TransformerBridge, size: int) -> Rows:
        """The same rows with their likelihood under `model`, which is then not needed while training."""
        return replace(self, reference=-evaluation.score_answers(model, self.tokens, size).logprob)


@dataclass(frozen=True)
class Sources:
    """Where the batches come from. `alternative` belongs to `forget` row by row.

    `retain_groups` holds the rows of `retain` that make a group; a batch takes as many from each.
    """

    forget: Rows
    retain: Rows
    retain_groups: tuple[Int[Tensor, " _"], ...]
    alternative: Rows | None = None
    text: Rows | None = None

    def with_references(self, model: TransformerBridge, size: int) -> Sources:
        """Forget and alternative rows with their likelihood under `model`, `size` rows in a forward pass."""
        alternative = None if self.alternative is None else self.alternative.with_reference(model, size)
        return replace(self, forget=self.forget.with_reference(model, size), alternative=alternative)


@dataclass(frozen=True)
class Batch:
    """One part of an optimiser step."""

    forget: Tokens
    retain: Tokens
    divisors: Divisors
    reference: Float[Tensor, " fact"] | None = None
    alternative: Tokens | None = None
    alternative_reference: Float[Tensor, " fact"] | None = None
    text: Tokens | None = None

    def to(self, device: torch.device | str) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **moved)

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model, padding not counted."""
        parts = (self.forget, self.retain, self.alternative, self.text)
        return sum(int(part.attention.sum()) for part in parts if part is not None)

    def score(self, model: PreTrainedModel) -> Scores:
        """Likelihoods of everything in the batch, with gradients."""
        return Scores(
            forget=score(model, self.forget),
            retain=score(model, self.retain),
            divisors=self.divisors,
            reference=self.reference,
            alternative=None if self.alternative is None else score(model, self.alternative),
            alternative_reference=self.alternative_reference,
            text=None if self.text is None else score(model, self.text),
        )


def score(model: PreTrainedModel, tokens: Tokens) -> Answers:
    """Likelihood of the answers; logits are computed only in columns that predict some row's answer."""
    columns = tokens.predicts.any(dim=0).nonzero()[:, 0]
    output = model(input_ids=tokens.ids, attention_mask=tokens.attention, logits_to_keep=columns, use_cache=False)
    return answer_nll(output.logits[tokens.predicts[:, columns]], tokens)


def draw(sources: Sources, size: int, parts: int, seed: int) -> Iterator[Batch]:
    """Endless batches: `parts` of them make one optimiser step of `size` forget rows, as many retain rows
    and passages.

    The rows of a step do not depend on `parts`; every row comes once before any of its group comes again.
    """
    generator = torch.Generator().manual_seed(seed)
    forget_steps = _shuffles(len(sources.forget), size, generator)
    retain_steps = _mixed(sources.retain_groups, size, generator)
    text_steps = None if sources.text is None else _shuffles(len(sources.text), size, generator)
    while True:
        forget, retain = next(forget_steps), next(retain_steps)
        text = None if text_steps is None else next(text_steps)
        divisors = Divisors(
            forget_facts=len(forget) / parts,
            forget_tokens=_scored(sources.forget, forget) / parts,
            retain_tokens=_scored(sources.retain, retain) / parts,
            text_tokens=0.0 if text is None else _scored(sources.text, text) / parts,
        )
        for part in range(parts):
            share = slice(part, None, parts)
            passages = None if text is None else text[share]
            yield _assemble(sources, divisors, forget[share], retain[share], passages)


def _assemble(sources: Sources, divisors: Divisors, forget: Tensor, retain: Tensor, text: Tensor | None) -> Batch:
    def reference(rows: Rows | None) -> Tensor | None:
        return None if rows is None or rows.reference is None else rows.reference[forget]

    return Batch(
        forget=take(sources.forget.tokens, forget),
        retain=take(sources.retain.tokens, retain),
        divisors=divisors,
        reference=reference(sources.forget),
        alternative=None if sources.alternative is None else take(sources.alternative.tokens, forget),
        alternative_reference=reference(sources.alternative),
        text=None if sources.text is None or text is None else take(sources.text.tokens, text),
    )


def _shuffles(count: int, size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " size"]]:
    pool = torch.empty(0, dtype=torch.long)
    while True:
        while len(pool) < size:
            pool = torch.cat([pool, torch.randperm(count, generator=generator)])
        yield pool[:size]
        pool = pool[size:]


def _mixed(
    groups: Sequence[Int[Tensor, " _"]], size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " size"]]:
    """Rows of each group in turn, every group shuffled by itself."""
    streams = [_shuffles(len(group), 1, generator) for group in groups]
    turns = itertools.cycle(zip(groups, streams, strict=True))
    while True:
        yield torch.cat([group[next(stream)] for group, stream in itertools.islice(turns, size)])


def _scored(rows: Rows | None, index: Tensor) -> float:
    assert rows is not None
    return float(rows.tokens.predicts[index].sum())


def take(tokens: Tokens, index: Int[Tensor, " chosen"]) -> Tokens:
    """These rows only, without the columns that are padding in all of them."""
    return tokens[index.tolist()].trim()


def spread(facts: Facts, prompts: Callable[[Fact], Sequence[str]]) -> Facts:
    """One row per prompt: the fact again and again, each time asked in another phrasing."""
    rows = (
        replace(fact, prompt=prompt, paraphrases=(), held_out=(), id=f"{fact.id}#{number}")
        for fact in facts
        for number, prompt in enumerate(prompts(fact))
    )
    return Facts(rows, name=facts.name, format=facts.format, template=facts.template)


def shown(fact: Fact) -> tuple[str, ...]:
    """The phrasings that unlearning trains on."""
    return (fact.prompt, *fact.paraphrases)


def asked(fact: Fact) -> tuple[str, ...]:
    """The phrasings that evaluation asks in: those held out; the prompt itself where a fact has none."""
    return fact.held_out or (fact.prompt,)


def by_role(facts: Facts) -> tuple[Int[Tensor, " _"], ...]:
    """The places of the facts of each role that occurs."""
    roles = [fact.role for fact in facts]
    return tuple(
        torch.tensor([place for place, found in enumerate(roles) if found == role]) for role in dict.fromkeys(roles)
    )


def with_distractors(rows: Facts, seed: int) -> Facts:
    """The same prompts with a wrong answer each: one of the fact's distractors, drawn with `seed`.

    Raises UserError: a fact without distractors.
    """
    generator = torch.Generator().manual_seed(seed)

    def other(fact: Fact) -> str:
        if not fact.distractors:
            raise UserError(
                f"fact '{fact.id.rsplit('#', 1)[0]}' has no distractors, which DPO prefers to the answer: "
                "fill its field `distractors`, or take NPO or gradient difference"
            )
        return fact.distractors[int(torch.randint(len(fact.distractors), (), generator=generator))]

    answers = [other(fact) for fact in rows]
    return rows.with_answers(answers)
