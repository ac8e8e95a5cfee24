"""From facts to token ids, with an explicit mask of the positions whose logits predict the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..checking import checked, shown
from ..errors import UserError, check_whole
from .chat import check_rendering, opening
from .fact import Fact, Template
from .facts import Facts
from .starts import start_of, start_tokens

PASSAGE = 1024  # most tokens of general text in one row
LONGEST_PASSAGE = 2**22  # characters of a passage
CHARACTERS_A_TOKEN = 16  # more than any language needs on average


@dataclass(frozen=True)
class Tokens:
    """Rows of token ids, padded on the right.

    Attributes:
        ids: the tokens; what stands at padded positions has no meaning.
        attention: 1 at real tokens, 0 at padding.
        predicts: True where the logits predict an answer token, i.e. one position before it.
        answers: True at the answer tokens themselves.
        fact_ids: the id of the fact of each row.
        subjects: True at the tokens of the fact's subject in the prompt; None where nobody looked
            (`facts.mark_subjects`).
    """

    ids: Int[Tensor, "fact pos"]
    attention: Int[Tensor, "fact pos"]
    predicts: Bool[Tensor, "fact pos"]
    answers: Bool[Tensor, "fact pos"]
    fact_ids: tuple[str, ...]
    subjects: Bool[Tensor, "fact pos"] | None = None

    @property
    def targets(self) -> Int[Tensor, " scored"]:
        """The answer tokens, row after row: the k-th is what the k-th True of `predicts` predicts."""
        return self.ids[:, 1:][self.predicts[:, :-1]]

    @property
    def prompt(self) -> Bool[Tensor, "fact pos"]:
        """True at real tokens that are no answer tokens."""
        return self.attention.bool() & ~self.answers

    def __len__(self) -> int:
        return len(self.fact_ids)

    def __getitem__(self, rows: slice | Sequence[int]) -> Tokens:
        """Some rows, as wide as before."""
        index = range(len(self))[rows] if isinstance(rows, slice) else rows
        chosen = torch.tensor(list(index), dtype=torch.long, device=self.ids.device)
        return replace(self._each(lambda part: part[chosen]), fact_ids=tuple(self.fact_ids[row] for row in index))

    def trim(self) -> Tokens:
        """The same rows without the columns that are padding in all of them."""
        width = int(self.attention.sum(1).max()) if len(self) else 0
        return self._each(lambda part: part[:, :width])

    def columns(self, width: int) -> Tokens:
        """The same rows, cut after this many columns."""
        return self._each(lambda part: part[:, :width])

    def to(self, device: str | torch.device) -> Tokens:
        """The same rows on another device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Tokens:
        ids, attention, predicts, answers = map(change, (self.ids, self.attention, self.predicts, self.answers))
        subjects = None if self.subjects is None else change(self.subjects)
        return Tokens(ids, attention, predicts, answers, self.fact_ids, subjects)


@checked
def tokenize(
    facts: Facts | Sequence[Fact],
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None = None,
    *,
    context: int | None = None,
) -> Tokens:
    """Render each fact and mark the positions that predict its answer.

    Prompt and answer are tokenised as one text, as a model would read them. A token belongs to the answer if
    it ends after the first character of the answer that is no white space: a token that straddles the border
    (" Paris") does, a space that stands alone before the answer does not. Special tokens never do.

    Args:
        facts: what to tokenise; all need answers.
        tokenizer: a tokenizer of transformers; slow ones work as long as no token straddles the border.
        template: None takes the one of `facts`, or the default for a plain list.
        context: the most tokens a row may have; None sets no limit.

    Raises:
        UserError: no facts, a fact without an answer, an answer that is no token or holds a word that the
            tokenizer does not know, a fact longer than the context, a BOS or chat template that is lacking.
    """
    if not len(facts):
        raise UserError(f"there are no facts to tokenise in {facts!r:.80}")
    template = template or (facts.template if isinstance(facts, Facts) else Template())
    start = start_of(tokenizer, template)
    names = tuple(fact.id or str(number) for number, fact in enumerate(facts))
    texts, borders = [], []
    for name, fact in zip(names, facts, strict=True):
        prompt = prompt_text(fact.prompt, tokenizer, template)
        if fact.answer is None:
            raise UserError(f"fact {name!r} has no answer; fill answers first (evaluation.greedy_answers)")
        answer = template.render_answer(fact.answer)
        if template.chat:
            check_rendering(prompt, template.render_prompt(fact.prompt), answer, tokenizer, template)
        check_length(name, prompt + answer, tokenizer, context)
        texts.append(prompt + answer)
        borders.append(len(prompt) + len(answer) - len(answer.lstrip()))
    rows = []
    for name, text, (ids, ends) in zip(names, texts, _encode(texts, borders, tokenizer), strict=True):
        border = borders[len(rows)]
        answers = _answer_tokens(ids, ends, border, tokenizer)
        _check_answer(name, ids, answers, text[border:], tokenizer)
        # A chat template, or the prompt itself, may bring the start tokens: they are never doubled.
        if ids[: len(start)] != start:
            ids, answers = start + ids, [False] * len(start) + answers
        if answers[0]:
            raise UserError(f"fact {name!r}: no token comes before the answer, so nothing can predict it")
        if context is not None and len(ids) > context:
            raise UserError(f"fact {name!r} has {len(ids)} tokens, more than the context of {context}: {text!r:.60}")
        rows.append((ids, answers))
    return _pad(rows, names)


def check_length(name: str, text: str, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    """Whether a long text can fit, told by its beginning: megabytes take minutes to be cut into tokens.

    Raises:
        UserError: the beginning alone has more tokens than the context.
    """
    if context is None or len(text) <= (most := CHARACTERS_A_TOKEN * context):
        return
    if len(encoded(tokenizer, [text[:most]])["input_ids"][0]) > context:
        raise UserError(
            f"fact {name!r} has {len(text):,} characters, more than fit into the context of {context} tokens: "
            f"{text!r:.60}"
        )


@checked
def tokenize_texts(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    context: int | None = None,
    bos: bool | None = None,
) -> Tokens:
    """General text as rows in which every token but the first is to be predicted (`answers` marks them all).

    A text longer than the context, or than `PASSAGE` tokens, is cut into consecutive rows, each with the tokenizer's
    start tokens: a context of 131,072 tokens is more than a pass with gradients finds memory for.
    `fact_ids` are the numbers of the texts. `bos` as in `Template`.

    Raises:
        UserError: no text, one string in place of a list, or a text of fewer than two tokens.
    """
    check_passages(texts, "texts")
    if not texts:
        raise UserError("there is no text to tokenise")
    if context is not None:
        check_whole("context", context, 2)
    start = start_tokens(tokenizer, bos)
    rows, names = [], []
    for number, ids in enumerate(encoded(tokenizer, list(texts))["input_ids"]):
        ids = ids[len(start) :] if start and ids[: len(start)] == start else ids  # never doubled
        if len(start) + len(ids) < 2:
            raise UserError(f"text {number} has fewer than two tokens, nothing to predict: {texts[number]!r:.60}")
        length = min(context or PASSAGE, PASSAGE) - len(start)
        for first in range(0, len(ids), length):
            row = start + ids[first : first + length]
            if len(row) > 1:  # the last piece may be a single token
                rows.append((row, [False] + [True] * (len(row) - 1)))
                names.append(str(number))
    return _pad(rows, tuple(names))


def check_passages(texts: Sequence[str] | None, name: str) -> None:
    """Raises UserError: `texts`, the argument `name`, is one string, whose letters would be taken for passages, or
    a passage cannot be encoded."""
    if isinstance(texts, str):
        raise UserError(f"{name} must be a list of passages, not one string: {name}=[…]")
    for number, text in enumerate(texts or ()):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{name}[{number}] is no passage of text but {shown(text)}")
        if len(text) > LONGEST_PASSAGE:
            raise UserError(
                f"{name}[{number}] has {len(text):,} characters; give passages of at most {LONGEST_PASSAGE:,} each"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"{name}[{number}] holds half a character (a lone surrogate); mend the text {text!a:.60}")


def paper_positions(tokens: Tokens) -> Bool[Tensor, "fact pos"]:
    """The positions that the dissecting paper scores (arXiv 2410.06606, its code): the last n of each row.

    n is the number of answer tokens. Kept for comparison only: the slice omits the position that predicts the
    first answer token, and adds the last one, which predicts what comes after the answer. (The paper's own n
    is further off, because it also subtracts padding; that depends on its batches and is not reproduced.)
    """
    lengths = tokens.attention.sum(1, keepdim=True)
    place = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)[None, :]
    return (place < lengths) & (place >= lengths - tokens.answers.sum(1, keepdim=True))


def prompt_text(prompt: str, tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """The whole text before the answer, chat template included.

    Raises:
        UserError: a chat template is asked for and the tokenizer has none.
    """
    text = template.render_prompt(prompt)
    return opening(text, tokenizer, template) if template.chat else text


def prompt_tokens(prompt: str, tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    """The ids of the text before the answer, start tokens included: what a model is given to go on from.

    Raises:
        UserError: a BOS or chat template that the tokenizer lacks; a prompt that is no token.
    """
    start = start_of(tokenizer, template)
    ids = encoded(tokenizer, [prompt_text(prompt, tokenizer, template)])["input_ids"][0]
    ids = ids if ids[: len(start)] == start else start + ids
    if not ids:
        raise UserError(f"the prompt {prompt!r:.60} is no token for this tokenizer")
    return ids


def tokens_hash(tokens: Tokens) -> str:
    """The SHA-256 of the ids that a model is shown, in hexadecimal: what was asked, whatever made it so."""
    digest = hashlib.sha256(str(tuple(tokens.ids.shape)).encode())
    for part in (tokens.ids * tokens.attention, tokens.attention, tokens.predicts.long()):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str], offsets: bool = False) -> dict:
    """What the tokenizer gives for these texts as they are: `input_ids`, with `offsets` also `offset_mapping`."""
    return dict(
        tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_offsets_mapping=offsets,
            verbose=False,  # the context is checked here, with the fact's name
        )
    )


def _encode(
    texts: list[str], borders: list[int], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[int], list[int]]]:
    """Ids of each text, and for each token the place in the text where it ends."""
    if tokenizer.is_fast:
        found = encoded(tokenizer, texts, offsets=True)
        ends = [[end for _, end in spans] for spans in found["offset_mapping"]]
        for text, places in zip(texts, ends, strict=True):
            # Some released tokenizers give only empty spans, which would quietly shift every mask.
            if places and max(places) < len(text.rstrip()):
                raise UserError(f"the tokenizer's offsets do not reach the end of {text!r:.80}; mend its files")
        return list(zip(found["input_ids"], ends, strict=True))
    return [_encode_slowly(text, border, tokenizer) for text, border in zip(texts, borders, strict=True)]


def _encode_slowly(text: str, border: int, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Without offsets: the tokens after those of the text before the border, if these come out the same."""
    ids = encoded(tokenizer, [text])["input_ids"][0]
    for before in (text[:border], text[:border].rstrip()):
        head = encoded(tokenizer, [before])["input_ids"][0]
        if ids[: len(head)] == head:
            return ids, [border] * len(head) + [len(text)] * (len(ids) - len(head))
    raise UserError(
        f"the tokenizer gives no offsets, and prompt and answer share a token in {text!r:.80}; "
        "use its fast version (a folder with tokenizer.json)"
    )


def _answer_tokens(ids: list[int], ends: list[int], border: int, tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    unknown: Any = tokenizer.unk_token_id
    special: set[Any] = set(tokenizer.all_special_ids) - {unknown}
    if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id):  # GPT-2 has one token for all three
        special.add(unknown)
    return [end > border and token not in special for token, end in zip(ids, ends, strict=True)]


def _check_answer(
    name: str, ids: list[int], answers: list[bool], answer: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    if not any(answers):
        raise UserError(f"fact {name!r}: its answer {answer!r} is no token, or only special tokens")
    if any(scored and token == tokenizer.unk_token_id for token, scored in zip(ids, answers, strict=True)):
        raise UserError(f"fact {name!r}: its answer {answer!r} holds a word that the tokenizer does not know")


def _pad(rows: list[tuple[list[int], list[bool]]], names: tuple[str, ...]) -> Tokens:
    # Any token of the embedding does: what stands at padding has no meaning. A pad token may lie beyond the embedding,
    # where it was added and the embedding was not resized.
    pad = rows[0][0][0]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    answers = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, (row, marks) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        attention[number, : len(row)] = 1
        answers[number, : len(row)] = torch.tensor(marks)
    predicts = torch.zeros_like(answers)
    predicts[:, :-1] = answers[:, 1:]
    return Tokens(ids, attention, predicts, answers, names)
