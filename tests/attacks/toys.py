"""Facts in folds and tiny random models that can read them."""

from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mechunlearn.attacks.base import Given
from mechunlearn.facts import Fact, Facts, Template, tokenize
from mechunlearn.models import load

from ..architectures import tiny

SUBJECTS = ("anna", "berta", "carla", "dora", "emil", "fritz", "gustav", "heinz")
RELATIONS = {"colour": ("house", ("red", "dark grey")), "pet": ("pet", ("cat", "old brown dog"))}
WORDS = ("the", "of", "is", "likes", "coat", "house", "pet", "Question", "Answer", ":", ".", "says")


def make_facts(folds: int | None = 4, template: Template | None = None) -> Facts:
    """Two facts for each of eight subjects; two subjects a fold; answers of one, two or three tokens."""
    found = []
    for relation, (word, answers) in RELATIONS.items():
        for place, subject in enumerate(SUBJECTS):
            found.append(
                Fact(
                    prompt=f"the {word} of {subject} is",
                    answer=answers[place % 2],
                    id=f"{relation}/{subject}",
                    subject=subject,
                    relation=relation,
                    paraphrases=(f"{word} : {subject}",),
                    held_out=(f"{subject} likes the {word}", f"the {word} coat of {subject} is"),
                    fold=None if folds is None else place % folds,
                    role="forget",
                )
            )
    return Facts(found, name="toys", template=template)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    answers = " ".join(answer for _, options in RELATIONS.values() for answer in options).split()
    entries = {word: number for number, word in enumerate(["<unk>", "<s>", "<pad>", *WORDS, *SUBJECTS, *answers])}
    core = Tokenizer(models.WordLevel(entries, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", pad_token="<pad>")


@cache
def toy(name: str = "llama", seed: int = 0) -> TransformerBridge:
    """A random model of four layers, width 32 and a context of 64; shared, so it must come out as it went in."""
    return load(tiny(name, seed), tokenizer=tokenizer(), device="cpu")


def given(before: TransformerBridge | None = None, facts: Facts | None = None, seed: int = 0) -> Given:
    return Given(make_facts() if facts is None else facts, Facts([]), before=before, seed=seed)


@torch.no_grad()
def logits(model: TransformerBridge, facts: Facts | None = None) -> Tensor:
    tokens = tokenize(make_facts() if facts is None else facts, tokenizer())
    return model(tokens.ids, attention_mask=tokens.attention)[tokens.attention.bool()]
