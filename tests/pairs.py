"""Pairs of tiny models and token rows for the tests of the dissection."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mechunlearn.facts import Tokens
from mechunlearn.models import Slot, clone, load, slots

from .architectures import VOCABULARY, tiny


@cache
def before(name: str) -> TransformerBridge:
    """A tiny random model; shared between tests, so it must come out of each as it went in."""
    return load(tiny(name), device="cpu")


@torch.no_grad()
def changed(model: TransformerBridge, which: Callable[[Slot], bool], scale: float = 0.1, seed: int = 7):
    """A copy in which only the parameters that `which` picks are moved."""
    after = clone(model)
    generator = torch.Generator().manual_seed(seed)
    touched = [slot for slot in slots(after) if which(slot)]
    assert touched, "the test meant to change something"
    for slot in touched:
        slot.tensor.add_(scale * torch.randn(slot.tensor.shape, generator=generator))
    return after


def rows(lengths: tuple[int, ...] = (12, 9, 11), answer: int = 2, seed: int = 3) -> Tokens:
    """Right-padded rows of random tokens that end in an answer of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    places = torch.arange(max(lengths))[None]
    ends = torch.tensor(lengths)[:, None]
    attention = (places < ends).long()
    predicts = (places >= ends - answer - 1) & (places < ends - 1)
    answers = (places >= ends - answer) & (places < ends)
    return Tokens(ids * attention, attention, predicts, answers, tuple(f"f{i}" for i in range(len(lengths))))


def word_level(vocabulary: list[str], folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of these words, saved and opened again, as a bridge wants it."""
    entries = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *vocabulary])}
    core = Tokenizer(models.WordLevel(entries, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def snapshot(model: TransformerBridge):
    """Everything that a pass must leave as it was: hooks, flags, parameters."""
    return (
        sum(len(point.fwd_hooks) for point in model.hook_dict.values()),
        [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [(p.requires_grad, p.data_ptr(), float(p.detach().double().sum())) for p in model.parameters()],
    )
