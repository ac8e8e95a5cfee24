"""How one model of the organism is taught: what it reads in which order, its shape, its loss."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from ..training import Settings, train
from .measure import measure
from .text import Corpus, general_text, multiple_choice, statements
from .tokenizer import BOS_ID, EOS_ID, PAD_ID
from .world import TINY, PlantedFact, Size, make_world

ORGANISM, NEVER_KNEW = "organism", "never-knew"


@dataclass(frozen=True)
class Recipe:
    """How large the world and the models are, and how long they learn.

    In each epoch a model reads every statement of the facts it may know, `choices` of their multiple-choice
    questions and `passages_read` of the `passages` of general text, in batches of `batch_tokens` tokens.
    """

    size: Size = field(default_factory=Size)
    passages: int = 6000
    passages_held_out: int = 300
    vocabulary: int = 1280
    layers: int = 6
    width: int = 128
    width_mlp: int = 352
    heads: int = 4
    key_value_heads: int = 2
    context: int = 128
    steps: int = 1800
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    batch_tokens: int = 2304
    choices: int = 400
    passages_read: int = 1500


QUICK = Recipe(
    size=TINY,
    passages=120,
    passages_held_out=40,
    vocabulary=512,
    layers=2,
    width=16,
    width_mlp=24,
    heads=2,
    key_value_heads=1,
    steps=6,
    batch_tokens=512,
    choices=20,
    passages_read=40,
)


def learn(name: str, folder: Path, seed: int, recipe: Recipe, progress: str | None = None) -> dict[str, Any]:
    """Train the organism or its twin and save it into `folder`, which holds the tokenizer already.

    Both start from the same weights and take as many steps; the twin is never shown a fact of a forget set. One
    thread: the weights then do not depend on how many the machine has. Returns `parameters`, `seconds` and what
    was `measured`.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    world = make_world(seed, recipe.size)
    text = general_text(world, recipe.passages, recipe.passages_held_out)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = world.facts if name == ORGANISM else world.where(lambda planted: not planted.forgotten)
    model = new_model(recipe, len(tokenizer), seed)
    settings = Settings(
        recipe.steps,
        recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup=recipe.steps // 20,
        schedule="cosine",
        seed=seed,
    )
    batches = read(known, text, tokenizer, recipe, seed)
    frame = train(model, batches, language_loss(model), settings, progress=progress)
    model.eval().save_pretrained(folder)
    return {
        "parameters": model.num_parameters(),
        "training_loss": round(float(frame["loss"].tail(50).mean()), 4),
        "measured": measure(name, model, tokenizer, world, text),
        "seconds": round(time.perf_counter() - start, 1),
    }


def new_model(recipe: Recipe, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights. Embedding and unembedding are two matrices, so that each can be restored."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.width_mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=False,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def read(
    known: Sequence[PlantedFact], text: Corpus, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, seed: int
) -> Iterator[Int[Tensor, "row pos"]]:
    """Batches, epoch after epoch: rows of like length that end with EOS, padded on the right."""
    rng = random.Random(f"batches {seed}")
    stated = statements(known)
    while True:
        asked = rng.sample(known, min(recipe.choices, len(known)))
        documents = [
            *stated,
            *(f"{' '.join(multiple_choice(planted, rng))}." for planted in asked),
            *rng.sample(text.train, min(recipe.passages_read, len(text.train))),
        ]
        rows = [[*ids, EOS_ID] for ids in tokenizer(documents)["input_ids"]]
        rng.shuffle(rows)
        rows.sort(key=len)
        batches = list(_cut(rows, recipe.batch_tokens))
        rng.shuffle(batches)
        for batch in batches:
            yield pad_sequence([torch.tensor(row) for row in batch], batch_first=True, padding_value=PAD_ID)


def _cut(rows: Sequence[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    """Consecutive rows, as many as fit into `tokens` (they come in order of length, so little is padding)."""
    rest = iter(rows)
    while first := next(rest, None):
        yield [first, *islice(rest, max(tokens // len(first) - 1, 0))]


def language_loss(model: nn.Module) -> Callable[[Tensor], dict[str, Tensor]]:
    """Cross entropy of every next token. Padding is on the right, so causal attention never sees it."""

    def loss(ids: Int[Tensor, "row pos"]) -> dict[str, Tensor]:
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].flatten()
        return {"loss": nn.functional.cross_entropy(logits, targets, ignore_index=PAD_ID)}

    return loss
