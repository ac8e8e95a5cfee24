"""What is measured while a model unlearns: the facts to forget, those to keep, and general text."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..evaluation import score_answers, text_kl, text_loss
from ..facts import Facts, Tokens, tokenize, tokenize_texts
from .batches import asked, spread


class Watch:
    """Measures a model that changes against the one it started from, and says when to stop.

    Facts are asked in the phrasings held out from training, and averaged over these rows. Retain facts are
    grouped by their role ("near", "far"); those without a role form the group "retain".
    """

    def __init__(
        self,
        before: TransformerBridge,
        forget: Facts,
        retain: Facts,
        text: Sequence[str] | None,
        stop: float | None,
    ) -> None:
        roles = {role: retain.where(role=role) for role in ("near", "far", None)}
        groups = {"forget": forget} | {role or "retain": facts for role, facts in roles.items() if len(facts)}
        context = before.cfg.n_ctx
        self.groups: dict[str, Tokens] = {
            name: tokenize(spread(facts, asked), before.tokenizer, context=context) for name, facts in groups.items()
        }
        self.text = None if text is None else tokenize_texts(text, before.tokenizer, context=context)
        self.before, self.stop = before, stop
        self.rows: list[dict[str, float]] = []
        self.tokens = 0  # trained on so far; whoever trains counts
        self.start = time.perf_counter()

    def look(self, model: TransformerBridge, step: int) -> bool:
        """Measure and note down; whether the forget facts are forgotten."""
        self.rows.append(
            {"step": step}
            | self._facts(model)
            | self._text(model)
            | {"seconds": time.perf_counter() - self.start, "tokens": self.tokens}
        )
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether recall on the forget facts was at or below `stop` when last measured."""
        return self.stop is not None and self.rows[-1]["forget_recall"] <= self.stop

    @property
    def last(self) -> int:
        """The step at which it was last measured."""
        return int(self.rows[-1]["step"])

    def frame(self, training: pd.DataFrame | None) -> pd.DataFrame:
        """One row per look, with the mean of each part of the loss over the steps since the look before."""
        looks = pd.DataFrame(self.rows)
        names = ["loss", "forget", "retain", "text"]
        if training is None:
            parts = pd.DataFrame(float("nan"), index=looks.index, columns=pd.Index(names))
        else:
            # Each step belongs to the first look that is not before it.
            place = looks["step"].searchsorted(training["step"])
            parts = training.groupby(place)[names].mean().reindex(looks.index)
        parts.columns = [name if name == "loss" else f"loss_{name}" for name in names]
        return pd.concat([looks[["step"]], parts, looks.drop(columns="step")], axis=1)

    def _facts(self, model: TransformerBridge) -> dict[str, float]:
        """Recall, and the probability of an answer token (geometric mean over the answer)."""
        row = {}
        for name, tokens in self.groups.items():
            scores = score_answers(model, tokens)
            row[f"{name}_recall"] = float(scores.correct.double().mean())
            row[f"{name}_probability"] = float(scores.mean_logprob.double().exp().mean())
        return row

    def _text(self, model: TransformerBridge) -> dict[str, float]:
        """Loss and KL(before‖model) per token of general text, in nats."""
        if self.text is None:
            return {}
        return {"text_loss": text_loss(model, self.text), "text_kl": text_kl(model, self.before, self.text)}
