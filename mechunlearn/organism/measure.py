"""What a freshly trained model knows: recall on the phrasings that no fact was trained in, beside chance."""

from __future__ import annotations

import random
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation import recall, text_loss
from ..facts import Fact, tokenize, tokenize_texts
from .relations import DOMAINS
from .text import LETTERS, Corpus, multiple_choice
from .world import PlantedFact, World

_BATCH = 256


def measure(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World, text: Corpus
) -> dict[str, Any]:
    """Recall by domain, and the loss on the held-out general text (nats per token).

    `recall` has rows `model, form, domain, forgotten, n, recall, chance`: greedy, every answer token right. `form`
    is "statement" (the held-out phrasings, two a fact) or "multiple choice" (naming the right one of four, which
    are drawn and ordered afresh). `forgotten` facts are in a forget set. `chance` is one over the number of candidates.
    """
    rng = random.Random(f"measure {world.seed}")
    rows = []
    for domain in DOMAINS:
        for forgotten in (True, False):
            chosen = [
                planted
                for planted in world.facts
                if planted.fact.domain == domain.name and planted.forgotten == forgotten
            ]
            if chosen:
                for form, facts, chance in _forms(chosen, rng):
                    right = recall(model, tokenize(facts, tokenizer), _BATCH).double().mean()
                    rows.append(
                        {
                            "model": name,
                            "form": form,
                            "domain": domain.name,
                            "forgotten": forgotten,
                            "n": len(facts),
                            "recall": round(float(right), 4),
                            "chance": round(chance, 4),
                        }
                    )
    loss = text_loss(model, tokenize_texts(text.held_out, tokenizer), _BATCH)
    return {"recall": rows, "text_loss": round(loss, 4)}


def _forms(chosen: list[PlantedFact], rng: random.Random) -> list[tuple[str, list[Fact], float]]:
    told = [Fact(prompt, planted.fact.answer) for planted in chosen for prompt in planted.fact.held_out]
    asked = [Fact(*multiple_choice(planted, rng)) for planted in chosen]
    chance = sum(planted.chance for planted in chosen) / len(chosen)
    return [("statement", told, chance), ("multiple choice", asked, 1 / len(LETTERS))]
