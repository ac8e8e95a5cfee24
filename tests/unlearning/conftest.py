"""A tiny Llama that really knows a few facts, and the facts."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mechunlearn.facts import Fact, Facts
from mechunlearn.models import hf, load
from mechunlearn.training import Settings, train
from mechunlearn.unlearning.data.batches import Divisors, Part
from mechunlearn.unlearning.data.rows import fact_rows
from mechunlearn.unlearning.step import look

COLOURS = ("red", "green", "blue", "dark grey")
ROLES = {
    "forget": ("anna", "berta", "carla", "dora"),
    "near": ("emil", "fritz", "gustav"),
    "far": ("heinz", "ida"),
}
TEXT = ("the house of anna is red and the coat of emil is blue", "emil likes the house", "a coat is a coat")


def known_facts() -> Facts:
    """Four facts to forget, three near, two far; two phrasings trained, one held out; answers of one or two words."""
    found = []
    for role, names in ROLES.items():
        for name in names:
            answer = COLOURS[len(found) % len(COLOURS)]
            found.append(
                Fact(
                    prompt=f"the house of {name} is",
                    answer=answer,
                    id=name,
                    paraphrases=(f"{name} likes",),
                    held_out=(f"the coat of {name} is",),
                    distractors=tuple(colour for colour in COLOURS if colour != answer),
                    role=role,
                )
            )
    return Facts(found)


def word_tokenizer(facts: Facts) -> PreTrainedTokenizerFast:
    """One token a word of the facts and of `TEXT`."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    everything = facts.questions("all")
    words = [f"{fact.prompt} {fact.answer}" for fact in everything] + list(TEXT)
    core.train_from_iterator(words, trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "<pad>"]))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", pad_token="<pad>")


def knowing_model(facts: Facts) -> TransformerBridge:
    """A Llama of two layers, trained on all facts in all phrasings; 100 % recall."""
    tokenizer = word_tokenizer(facts)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    model = load(LlamaForCausalLM(config), tokenizer=tokenizer)
    rows = fact_rows(facts.questions("all"), model)
    part = Part(
        rows.tokens, rows.valid, rows.weight, rows.fold,
        Divisors(float(len(rows)), float(rows.tokens.predicts.sum()), float(rows.valid.sum())),
    )  # fmt: skip
    train(
        hf(model), iter(lambda: part, None), lambda batch: {"loss": look(model, batch).nll.mean()},
        Settings(steps=80, learning_rate=1e-2),
    )  # fmt: skip
    return model


@pytest.fixture(scope="session")
def facts() -> Facts:
    return known_facts()


@pytest.fixture(scope="session")
def knowing(facts: Facts) -> TransformerBridge:
    return knowing_model(facts)
