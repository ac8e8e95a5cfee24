"""What is measured while a model unlearns: the facts to forget, those to keep, and general text."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers.modeling_outputs import CausalLMOutput

from ...evaluation import are_long, score_answers, text_scores
from ...facts import Facts, Tokens, tokenize, tokenize_texts
from ...models import hf
from ...models.forward import measuring
from .memory import out_of_memory

log = logging.getLogger(__name__)

ROWS = 32  # at a time, as long as memory suffices
REMEMBERED_BYTES = 2**28  # logits of the start model on general text are kept up to this size


class Watch:
    """Measures a model that changes against the one it started from.

    Facts are asked in the phrasings that `prompts` names, and averaged over these questions. Retain facts are
    grouped by their role ("near", "far"); those without a role form the group "retain". With `by_fold`, recall is
    also noted for every fold of the forget facts.
    """

    def __init__(
        self,
        before: TransformerBridge,
        forget: Facts,
        retain: Facts,
        text: Sequence[str] | None,
        prompts: str = "held_out",
        by_fold: bool = False,
    ) -> None:
        roles = {role: retain.where(role=role) for role in ("near", "far", None)}
        groups = {"forget": forget} | {role or "retain": facts for role, facts in roles.items() if len(facts)}
        context = before.cfg.n_ctx
        questions = {name: facts.questions(prompts) for name, facts in groups.items()}
        self.groups: dict[str, Tokens] = {
            name: tokenize(facts, before.tokenizer, context=context) for name, facts in questions.items()
        }
        # Groups whose answers are too long for exact recall to decide alone (evaluation.graded).
        self.long = {name for name, tokens in self.groups.items() if are_long(tokens.answers.sum(1).tolist())}
        self.folds = torch.tensor([fact.fold or 0 for fact in questions["forget"]]) if by_fold else None
        self.text = (
            None if text is None else tokenize_texts(text, before.tokenizer, context=context, bos=forget.template.bos)
        )
        self.before = _Remembering(before)
        self.rows = ROWS

    def measure(self, model: TransformerBridge) -> dict[str, float]:
        """One value a column. Probability is that of an answer token: the geometric mean over the answer.

        Raises:
            NotFiniteError: the model gives logits that are not numbers.
        """
        while True:
            try:
                return self._measure(model)
            except RuntimeError as error:
                if not out_of_memory(error) or self.rows == 1:
                    raise
                self.rows //= 2
                log.warning("out of memory: evaluating %d rows at a time", self.rows)

    def _measure(self, model: TransformerBridge) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, tokens in self.groups.items():
            scores = score_answers(model, tokens, self.rows)
            row[f"{name}_recall"] = float(scores.correct.double().mean())
            row[f"{name}_probability"] = float(scores.mean_logprob.double().exp().mean())
            if name in self.long:
                row[f"{name}_token_recall"] = float(scores.memorised.double().mean())
            if name == "forget" and self.folds is not None:
                for fold in self.folds.unique().tolist():
                    of_fold = self.folds == fold
                    row[f"fold_{fold}_recall"] = float(scores.correct[of_fold].double().mean())
                    if name in self.long:
                        row[f"fold_{fold}_probability"] = float(scores.mean_logprob[of_fold].double().exp().mean())
        if self.text is not None:
            found = text_scores(model, self.before, self.text, max(1, self.rows // 2))
            row |= {"text_loss": found.loss, "text_kl": found.kl, "text_entropy": found.entropy}
        return row


class _Remembering:
    """A model that does not change, and keeps what it said as long as that is small."""

    def __init__(self, model: TransformerBridge) -> None:
        self.model = hf(model)
        self.said: dict[bytes, CausalLMOutput] = {}
        self.size = 0

    def __call__(
        self,
        input_ids: Int[Tensor, "fact pos"],
        attention_mask: Int[Tensor, "fact pos"],
        logits_to_keep: Int[Tensor, " column"],
        use_cache: bool,
    ) -> CausalLMOutput:
        key = b"|".join(part.cpu().numpy().tobytes() for part in (input_ids, attention_mask, logits_to_keep))
        if key in self.said:
            return self.said[key]
        ids, attention, columns = (part.to(self.model.device) for part in (input_ids, attention_mask, logits_to_keep))
        with measuring(self.model):
            logits = self.model(
                input_ids=ids, attention_mask=attention, logits_to_keep=columns, use_cache=use_cache
            ).logits
        if self.size + logits.nbytes <= REMEMBERED_BYTES:
            self.said[key] = CausalLMOutput(logits=logits.cpu())
            self.size += logits.nbytes
        return CausalLMOutput(logits=logits)


class Diary:
    """The rows of the frame: what was measured, and the mean of each part of the loss since the row before."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.tokens = 0  # trained on so far
        self.seconds = 0.0  # spent so far, in this and in interrupted calls
        self._clock = time.perf_counter()
        self._since: dict[str, list[float]] = defaultdict(list)

    def trained(self, losses: dict[str, float], tokens: int) -> None:
        """Note one step."""
        self.tokens += tokens
        for name, value in losses.items():
            self._since[name].append(value)

    def note(self, step: int, measured: dict[str, float], **more: Any) -> None:
        """Write a row."""
        means = {_column(name): sum(values) / len(values) for name, values in self._since.items()}
        self._since.clear()
        self.tick()
        cost = {"seconds": self.seconds, "tokens": self.tokens}
        self.rows.append({"step": step, **means, **measured, **more, **cost})

    def undo(self) -> None:
        """The steps since the last row are done again."""
        self._since.clear()
        self.tokens = self.rows[-1]["tokens"]

    def tick(self) -> None:
        """Add the time since the last call."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def frame(self) -> pd.DataFrame:
        """One row per evaluation; NaN where nothing was trained before it."""
        widest = max(self.rows, key=len)
        return pd.DataFrame(self.rows, columns=pd.Index(list(widest)))


def _column(name: str) -> str:
    """`loss`, its parts as `loss_forget` …, and what is no loss under its own name."""
    return name if name.endswith(("loss", "gradient_norm", "learning_rate")) else f"loss_{name}"
