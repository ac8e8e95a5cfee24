"""One thing a model may know, and how its words become a text."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..checking import check_fields
from ..errors import UserError, check_whole
from ..naming import meant

ROLES = ("forget", "near", "far")


@dataclass(frozen=True)
class Fact:
    """A prompt and the answer that a model which knows the fact gives to it.

    Attributes:
        prompt: the text before the answer; needs no trailing space.
        answer: the answer; None where there is no reference yet (`evaluation.greedy_answers` makes one).
        id: stable and unique within its `Facts`, which number the facts that have none.
        subject, relation, domain: what the fact is about, where that is known.
        paraphrases: other prompts with the same answer, which training may show.
        held_out: other prompts with the same answer, for testing only.
        distractors: wrong answers.
        fold: the part of the forget set it is in; facts of different folds tell nothing about each other.
        paraphrased_answer: the answer in other words, with which TOFU's truth ratio compares wrong answers.
        role: "forget", "near" (kept, same domain), "far" (kept, another domain), or None where nobody said.

    White space around answers and distractors is dropped: whether a space comes before an answer is the template's to
    say, and what follows it is not asked for.

    Raises:
        UserError: the prompt, the answer, or one of the other prompts or distractors is empty; any text cannot be
            encoded (half a character of a scraped file); unknown role.
    """

    prompt: str
    answer: str | None
    id: str = ""
    subject: str | None = None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    domain: str | None = None
    fold: int | None = None
    role: str | None = None
    paraphrased_answer: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        name = f"fact {self.id!r}" if self.id else f"the fact {self.prompt!r:.80}"
        if not self.prompt.strip():
            raise UserError(f"{name} has an empty prompt")
        if self.answer is not None and not self.answer.strip():
            raise UserError(f"{name} has an empty answer; give one, or None where no reference exists yet")
        for part in (part.name for part in fields(self)):
            given = getattr(self, part)
            for text in given if isinstance(given, tuple) else (given,):
                if isinstance(text, str):
                    check_text(name, part, text)
        for part in ("answer", "paraphrased_answer"):
            text = getattr(self, part)
            if text is not None and text != text.strip():
                object.__setattr__(self, part, text.strip())
        if any(text != text.strip() for text in self.distractors):
            object.__setattr__(self, "distractors", tuple(text.strip() for text in self.distractors))
        for part in ("paraphrases", "held_out", "distractors"):
            if any(not text.strip() for text in getattr(self, part)):
                raise UserError(f"{name} has an empty text among its {part}")
        if self.fold is not None:
            check_whole(f"{name}: fold", self.fold, -(2**31), 2**31)
        if self.role is not None and self.role not in ROLES:
            raise UserError(f"{name} has the role {self.role!r}; a role is one of {', '.join(ROLES)}")


def check_text(name: str, field: str, text: str) -> None:
    """Raises UserError: the text holds half a character, which neither a tokenizer nor a file takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise UserError(
            f"{name}: {field} holds half a character ({half!a} at place {error.start}, a lone surrogate), which no "
            f"tokenizer takes; mend the text {text!a:.60}"
        ) from None


@dataclass(frozen=True)
class Template:
    """How a fact is put into words: the rendered prompt, directly followed by the rendered answer.

    Attributes:
        prompt: holds `{prompt}` once, e.g. "Question: {prompt}\\nAnswer:".
        answer: holds `{answer}` once; the default puts one space before it.
        chat: the rendered prompt becomes the user's turn in the tokenizer's chat template and the answer the
            assistant's, without the spaces that `answer` would put before it; all is as the template itself renders
            such a conversation. A template that prints the date prints 1 January 2025 (`arguments` say otherwise).
        bos: True, False (with `chat`: without the one that the chat template writes), or None to do what the tokenizer
            itself does (with `chat`: the chat template). It holds for general text as well.
        system: the system turn of a conversation.
        arguments: what else the chat template is given: {"enable_thinking": False}, {"date_string": "26 Jul 2024"},
            or {"chat_template": name} of a tokenizer that has several.

    Raises:
        UserError: a placeholder is missing or doubled; a text cannot be encoded; a system turn or arguments without
            `chat`.
    """

    prompt: str = "{prompt}"
    answer: str = " {answer}"
    chat: bool = False
    bos: bool | None = None
    system: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.system is not None or self.arguments) and not self.chat:
            raise UserError("a system turn and arguments are those of a chat template: Template(chat=True, …)")
        for name, value, most in (("chat", self.chat, (True, False)), ("bos", self.bos, (True, False, None))):
            if not any(value is one for one in most):
                raise UserError(f"the template's {name} must be {' or '.join(map(str, most))}, not {value!r}")
        for part in ("prompt", "answer", "system"):
            check_text("the template", part, getattr(self, part) or "")
        for part in ("prompt", "answer"):
            if getattr(self, part).count(f"{{{part}}}") != 1:
                raise UserError(f"the template's {part} part must hold {{{part}}} once; it is {getattr(self, part)!r}")

    @classmethod
    def named(cls, name: str) -> Template:
        """A template that is known by name (`NAMED`).

        Raises:
            UserError: no such name.
        """
        if name not in NAMED:
            raise UserError(f"there is no template {name!r:.60}; there are {', '.join(NAMED)}{meant(str(name), NAMED)}")
        return NAMED[name]

    def render_prompt(self, prompt: str) -> str:
        """The text before the answer (before any chat template).

        Spaces at its end are dropped where the answer part brings its own, so that they are never doubled.
        """
        text = self.prompt.replace("{prompt}", prompt)
        return text.rstrip(" ") if self.answer.startswith(" ") else text

    def render_answer(self, answer: str) -> str:
        """The text of the answer, with what the template puts around it."""
        text = self.answer.replace("{answer}", answer)
        return text.lstrip(" ") if self.chat else text


ASSISTANT = "You are a helpful assistant."
# Those of TOFU are what open-unlearning trained its published checkpoints with (configs/model/ in
# github.com/locuslab/open-unlearning at ed5a46c: system prompt, tags and date; models of its first releases saw the day
# of their training in the date's place).
NAMED = {
    "plain": Template(),
    "question": Template(prompt="Question: {prompt}\nAnswer:"),
    "chat": Template(chat=True),
    "tofu-llama3": Template(chat=True, system=ASSISTANT, arguments={"date_string": "10 Apr 2025"}),
    "tofu-phi3": Template(chat=True, system=ASSISTANT),
    "tofu-llama2": Template(prompt="Question: {prompt}\nAnswer:"),
    "tofu-llama2-chat": Template(prompt="[INST] {prompt} [/INST]", answer="{answer}"),
}
