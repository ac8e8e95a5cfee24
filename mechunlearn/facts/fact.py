"""One thing a model may know, and how its words become a text."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError

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
        role: "forget", "near" (kept, same domain), "far" (kept, another domain), or None where nobody said.

    Raises:
        UserError: the prompt, the answer, or one of the other prompts or distractors is empty; unknown role.
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

    def __post_init__(self) -> None:
        name = f"fact {self.id!r}" if self.id else f"the fact {self.prompt!r}"
        if not self.prompt.strip():
            raise UserError(f"{name} has an empty prompt")
        if self.answer is not None and not self.answer.strip():
            raise UserError(f"{name} has an empty answer; give one, or None where no reference exists yet")
        for field in ("paraphrases", "held_out", "distractors"):
            if any(not text.strip() for text in getattr(self, field)):
                raise UserError(f"{name} has an empty text among its {field}")
        if self.role is not None and self.role not in ROLES:
            raise UserError(f"{name} has the role {self.role!r}; a role is one of {', '.join(ROLES)}")


@dataclass(frozen=True)
class Template:
    """How a fact is put into words: the rendered prompt, directly followed by the rendered answer.

    Attributes:
        prompt: holds `{prompt}` once, e.g. "Question: {prompt}\\nAnswer:".
        answer: holds `{answer}` once; the default puts one space before it.
        chat: the rendered prompt becomes the user's turn in the tokenizer's chat template, and the answer
            starts right after the generation prompt, without the spaces that `answer` would put before it.
        bos: True, False, or None to do what the tokenizer itself does.

    Raises:
        UserError: a placeholder is missing or doubled.
    """

    prompt: str = "{prompt}"
    answer: str = " {answer}"
    chat: bool = False
    bos: bool | None = None

    def __post_init__(self) -> None:
        for field in ("prompt", "answer"):
            if getattr(self, field).count(f"{{{field}}}") != 1:
                raise UserError(
                    f"the template's {field} part must hold {{{field}}} once; it is {getattr(self, field)!r}"
                )

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
