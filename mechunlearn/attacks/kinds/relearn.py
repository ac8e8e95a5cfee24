"""Relearning: fine-tune on some of the forgotten facts, or on something harmless, and ask for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ...errors import NotFiniteError, UserError, check_whole
from ...facts import Fact, Facts, Tokens, multiple_choice, tokenize, tokenize_texts, wrong_answers
from ...models import Slot, clone, hf, slots
from ...models.forward import scored_logits
from ...models.lora import linear_maps, lora
from ...training import Phase, Settings, Trainer, borrowed
from ..base import Attack, Attempt, Broken, Given
from ..splits import can_part, groups
from ..weights import share

DATA = ("folds", "near", "far", "text")
FORMS = ("text", "choice")
SUBSETS = ("all_but_one", "one", "every")
TRAINABLE = ("everything", "mlp", "lora")
MLPS = ({"mlp_keys", "expert_keys"}, {"value_vectors", "expert_value_vectors"})  # roles of what "mlp" trains
OPTIONS = 4  # to choose from


@dataclass(frozen=True, kw_only=True)
class Relearn(Attack):
    """Fine-tuning on the facts T of some folds, all blocks trained, and asking for V, the facts of the other folds.

    Facts without folds are parted in two halves, which is said.

    The attack of arXiv 2505.09500 (every proper subset of folds), 2410.08827 and 2509.11816, whose published code
    leaves the late blocks alone. An epoch shows each fact once, in the next of its prompt and paraphrases; V is asked
    before the first and after every epoch. No fact of V, and no held-out phrasing, is ever trained on. Near facts are
    asked as well after the last epoch: an attack that ruins the model shows there.

    A word of V may still be met where T says it too: as the answer to a fact of T, or as one of T's distractors in the
    form "choice". That tells which answers there are, not whose they are, and the never-knew twin is told the same.

    Attributes:
        data: "folds": T; "near", "far", "text": facts or text that were to be kept (benign relearning), all forget
            facts being asked.
        subsets: of folds to train on: "all_but_one", "one", or "every" proper subset.
        form: "text": the statement, every token trained; "choice": a question with four options, the answer trained.
        trainable: "everything", "mlp", or "lora" (adapters of `rank` on every linear map of the blocks).
        optimizer, learning_rate, epochs, batch_size: constant rate, gradients clipped to norm 1, weights in float32.
    """

    data: str = "folds"
    subsets: str = "all_but_one"
    form: str = "text"
    trainable: str = "everything"
    rank: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    epochs: int = 6
    batch_size: int = 16

    name: ClassVar[str] = "relearn"
    source: ClassVar[str] = "2410.08827, 2505.09500"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in (("data", DATA), ("subsets", SUBSETS), ("form", FORMS), ("trainable", TRAINABLE)):
            if getattr(self, field) not in known:
                raise UserError(f"relearn: {field}={getattr(self, field)!r} is not one of {', '.join(known)}")
        for field, least in (("rank", 1), ("epochs", 0), ("batch_size", 1)):
            check_whole(f"relearn: {field}", getattr(self, field), least)
        self._settings(1, 0)

    @property
    def label(self) -> str:
        """The settings in words; no two attacks share them, so that a summary never mixes any."""
        what = "" if self.data == "folds" else f"{self.data}, "
        own = [
            words
            for words, told in (
                ("as choices", self.form == "choice"),
                ("every subset", self.data == "folds" and self.subsets == "every"),
                ("one fold", self.data == "folds" and self.subsets == "one"),
                (f"rank {self.rank}", self.trainable == "lora" and self.rank != Relearn.rank),
                (f"{self.epochs} epochs", self.epochs != Relearn.epochs),
                (f"batches of {self.batch_size}", self.batch_size != Relearn.batch_size),
            )
            if told
        ]
        return ", ".join([f"{what}{self.trainable}", f"{self.optimizer} {self.learning_rate:g}", *own])

    def needs(self, given: Given) -> str | None:
        if self.data == "text":
            return None if given.text else "general text"
        trained = given.forget if self.data == "folds" else given.retain.where(role=self.data)
        if self.data == "folds" and len(trained.folds) < 2 and not can_part(trained):
            return "forget facts in two folds, or of two subjects"
        if not len(trained):
            return f"{self.data} facts"
        if self.form == "choice" and min(len(wrong_answers(fact)) for fact in trained) < OPTIONS - 1:
            return f"{OPTIONS - 1} distractors of every fact that it trains on"
        return None

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt | Broken]:
        near = given.questions(given.retain.where(role="near"))
        for part, train, test in self.partings(given):
            told = f"{self.label}: {part}" if given.progress else None
            step = 0
            try:
                # The order of batches follows from the data: the same for every model that is attacked.
                for step, state in self.learn(model, train, given.seed, told, given.forget.template.bos):
                    last = step == self.epochs
                    questions = test.with_items([*test, *near]) if last else test
                    yield Attempt(state, questions, self.label, part, step)
            except NotFiniteError as error:
                yield Broken(self.label, part, f"in epoch {step + 1} {error}")

    def partings(self, given: Given) -> Iterator[tuple[str, Facts | tuple[str, ...], Facts]]:
        """(what is trained in words, what is trained on, the questions asked) for every part of the attack."""
        if self.data == "text":
            yield "text", given.text, given.questions(given.forget)
        elif self.data != "folds":
            yield self.data, given.retain.where(role=self.data), given.questions(given.forget)
        else:
            folds = given.forget.folds
            parts = {str(number): facts for number, facts in folds.items()} if len(folds) > 1 else groups(given.forget)
            most = len(parts) - 1
            sizes = {"all_but_one": [most], "one": [1], "every": range(most, 0, -1)}[self.subsets]
            for size in sizes:
                for chosen in combinations(parts, size):
                    train, test = (
                        given.forget.where(
                            id={fact.id for name in parts if (name in chosen) == shown for fact in parts[name]}
                        )
                        for shown in (True, False)
                    )
                    yield f"{'folds ' * (len(folds) > 1)}{'+'.join(chosen)}", train, given.questions(test)

    def notes(self, model: TransformerBridge, given: Given) -> list[str]:  # noqa: ARG002 - as every attack has it
        if self.data != "folds" or len({fact.fold for fact in given.forget}) > 1:
            return []
        told = "those of a subject together"
        if not any(fact.subject for fact in given.forget):
            told = "fact by fact in turn: one half may tell something of the other, and tells it the twin as well"
        return [f"relearn: the forget facts are not parted in folds, so halves of them are relearned, {told}"]

    def learn(
        self,
        model: TransformerBridge,
        train: Facts | Sequence[str],
        seed: int,
        progress: str | None = None,
        bos: bool | None = None,
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """(epochs done, the model then), from 0 on; one copy of `model`, changed between what is yielded.

        `bos` is for general text, as in the template of the facts.

        Raises:
            UserError: facts without answers or too long, too few distractors for "choice", weights below float32.
        """
        copied = clone(model)
        copied.eval()
        yield 0, copied
        if not self.epochs:
            return
        with borrowed(copied), self._trained(copied, seed) as parameters:
            steps = -(-len(train) // self.batch_size)
            phase = Phase(lambda rows: {"loss": self._loss(copied, rows)}, self._settings(steps * self.epochs, seed))
            trainer = Trainer(copied, [phase], seed, parameters)
            for epoch in tqdm(range(1, self.epochs + 1), desc=progress, disable=progress is None, leave=False):
                rows = self._rows(train, epoch, copied, seed, bos)
                order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed * 10_007 + epoch))
                copied.train()
                for chosen in order.split(self.batch_size):
                    trainer.advance([rows[chosen.tolist()].trim()])
                copied.eval()
                yield epoch, copied

    def _rows(
        self, train: Facts | Sequence[str], epoch: int, model: TransformerBridge, seed: int, bos: bool | None
    ) -> Tokens:
        """What an epoch shows: each fact in the next of its phrasings, or as a fresh question; each text once."""
        if not isinstance(train, Facts):
            return tokenize_texts(train, model.tokenizer, context=model.cfg.n_ctx, bos=bos)
        if self.form == "choice":
            shown = [_as_choice(fact, seed * 10_007 + epoch) for fact in train]
        else:
            shown = [_phrased(fact, epoch + place) for place, fact in enumerate(train)]
        rows = tokenize(train.with_items(shown), model.tokenizer, context=model.cfg.n_ctx)
        return rows if self.form == "choice" else _every_token(rows)

    def _loss(self, model: TransformerBridge, rows: Tokens) -> Float[Tensor, ""]:
        return nn.functional.cross_entropy(scored_logits(model, rows).float(), rows.targets)

    def _settings(self, steps: int, seed: int) -> Settings:
        return Settings(steps, self.learning_rate, self.optimizer, seed=seed)

    @contextmanager
    def _trained(self, model: TransformerBridge, seed: int) -> Iterator[list[nn.Parameter]]:
        if self.trainable == "lora":
            with lora(model, self.rank, self.rank, seed=seed) as parameters:
                yield parameters
        else:
            yield [slot.tensor for slot in self._slots(model)]

    def reaches(self, model: TransformerBridge) -> float:
        return share(model, self._slots(model))

    def _slots(self, model: TransformerBridge) -> list[Slot]:
        """The parameters that are trained, or beside which adapters are."""
        if self.trainable == "everything":
            return list(slots(model))
        if self.trainable == "lora":
            linear = {name.replace("._original_component", "") for name in linear_maps(model)}
            return [slot for slot in slots(model) if slot.name.removesuffix(".weight") in linear]
        every = slots(model)
        found = [slot for roles in MLPS for slot in every if slot.layer >= 0 and set(slot.roles) & roles]
        if not found:
            raise UserError(f"relearn: {type(hf(model)).__name__} has no MLPs; give trainable='everything' or 'lora'")
        return found


def _as_choice(fact: Fact, seed: int) -> Fact:
    return multiple_choice(fact, options=OPTIONS, letters=False, seed=seed).question


def _phrased(fact: Fact, turn: int) -> Fact:
    phrasings = (fact.prompt, *fact.paraphrases)
    return replace(fact, prompt=phrasings[turn % len(phrasings)], paraphrases=(), held_out=())


def _every_token(rows: Tokens) -> Tokens:
    """The same rows with every token but the first to be predicted."""
    predicted = rows.attention.bool().clone()
    predicted[:, 0] = False
    before = torch.zeros_like(predicted)
    before[:, :-1] = predicted[:, 1:]
    return replace(rows, answers=predicted, predicts=before)
