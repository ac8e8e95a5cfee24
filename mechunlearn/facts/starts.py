"""What comes before a text: the tokens that a tokenizer puts there, or a BOS that the template asks for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import cast

from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .fact import Template

TRIED = 64  # words of a vocabulary


def start_tokens(tokenizer: PreTrainedTokenizerBase, bos: bool | None) -> list[int]:
    """What comes before a text: with None what the tokenizer puts there itself, else [BOS] or nothing.

    Raises:
        UserError: a BOS is asked for and the tokenizer has none.
    """
    if bos is None:
        # Asked, not looked up: `bos_token` may be set and not added, or another token be added.
        for word in _words(tokenizer):
            plain, whole = (_tried(tokenizer, word, special) for special in (False, True))
            if plain:
                places = range(len(whole) - len(plain) + 1)
                return next((whole[:place] for place in places if whole[place : place + len(plain)] == plain), [])
        return []
    if not bos:
        return []
    if tokenizer.bos_token_id is None:
        raise UserError("the template asks for a BOS token, but the tokenizer has none; use Template(bos=None)")
    return [cast(int, tokenizer.bos_token_id)]


def start_of(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    """The start tokens of a fact; a chat template brings its own, unless a BOS is asked for."""
    return [] if template.chat and template.bos is None else start_tokens(tokenizer, template.bos)


def _words(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Texts to try the tokenizer on: a letter, and, where it has none (digits, DNA), words of its own."""
    yield "a"
    special = set(tokenizer.all_special_tokens)
    for word in islice((word for word in tokenizer.get_vocab() if word not in special), TRIED):
        yield tokenizer.convert_tokens_to_string([word])


def _tried(tokenizer: PreTrainedTokenizerBase, word: str, special: bool) -> list[int]:
    """The tokens of a word; none where the tokenizer does not know it."""
    try:
        return list(tokenizer(word, add_special_tokens=special)["input_ids"])
    except Exception:  # the library's own, of no common kind: a vocabulary without a token for what is unknown
        return []


def unused_bos(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[str]:
    """A word about a BOS token that the tokenizer has and does not add; nothing where it is plain what is wanted."""
    bos = tokenizer.bos_token
    if template.chat or template.bos is not None or bos is None or bos == tokenizer.eos_token:
        return []
    if tokenizer.bos_token_id in start_tokens(tokenizer, None):
        return []
    return [f"the tokenizer has a BOS token ({bos}) that it does not put before a text; Template(bos=True) does"]
