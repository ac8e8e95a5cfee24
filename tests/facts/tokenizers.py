"""Small real tokenizers, trained in memory and opened again from a folder, as a user's would be."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = (
    "The capital of France is Paris. Question: who was born in Kuwait City?\nAnswer: Basil Mahfouz. "
    "the author writes in the French literature genre and lives in New York; naïve café, "
    "東京 Ω שלום مرحبا 🙂. "
) * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def _open(core: Tokenizer, **settings) -> PreTrainedTokenizerBase:
    fast = PreTrainedTokenizerFast(tokenizer_object=core, **settings)
    with tempfile.TemporaryDirectory() as folder:
        fast.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def _bos_first(core: Tokenizer) -> None:
    core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )


@cache
def words() -> PreTrainedTokenizerBase:
    """One token a word; no BOS; anything else is <unk>."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator([CORPUS], trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return _open(core, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


@cache
def byte_level() -> PreTrainedTokenizerBase:
    """Like GPT-2: bytes, spaces joined to the next word, a BOS that exists but is not added, no pad."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([CORPUS], trainer)
    return _open(core, bos_token="<|end|>", eos_token="<|end|>")


@cache
def byte_level_bos() -> PreTrainedTokenizerBase:
    """Like Llama 3: bytes, offsets that hold the space, and a BOS that the tokenizer adds itself."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [CORPUS],
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL[1:], initial_alphabet=alphabet, show_progress=False),
    )
    _bos_first(core)
    return _open(core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@cache
def metaspace() -> PreTrainedTokenizerBase:
    """Like Llama 2: "▁" for spaces, one put first, bytes for unknown characters, a BOS that is added."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    known = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + known, show_progress=False)
    core.train_from_iterator([CORPUS.replace("🙂", "").replace("東京", "")], trainer)
    # The byte tokens must be ordinary: only these four are special.
    state = json.loads(core.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    core = Tokenizer.from_str(json.dumps(state))
    _bos_first(core)
    return _open(core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


BYTES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte_level": byte_level,
    "byte_level_bos": byte_level_bos,
    "metaspace": metaspace,
}
