"""Multiple choice: a fact's answer among its distractors."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ..checking import checked
from ..errors import UserError, check_whole
from .fact import Fact

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Choice:
    """A question with listed options.

    Attributes:
        question: a fact whose prompt is the question with its options, up to "Answer:", whose answer is the right
            one of `options` and whose distractors are the others; id, role, fold and the like are the fact's.
        options: what may be answered, in the order of the list: letters, or the options' texts.
        right: the place of the right one in `options`.
    """

    question: Fact
    options: tuple[str, ...]
    right: int


@checked
def multiple_choice(fact: Fact, *, options: int = 4, letters: bool = True, seed: int = 0) -> Choice:
    """Ask for a fact's answer among some of its distractors.

    The question is one line, `Question: {prompt} A) … B) … C) … D) … Answer:`. Models in general read it as well
    as a list with a line an option, and it is the only form that the embedded organism was trained on. The
    organism learned to name the option's text, not its letter: ask it with `letters=False`.

    Which distractors are drawn, and the order of all options, follow from `seed` and the fact's id (its prompt,
    where it has none) alone: other facts have no say.

    Args:
        fact: has an answer and at least `options` − 1 distractors that differ from it and from each other.
        options: how many there are to choose from, the right one among them.
        letters: answered by a letter; else by the option's text.
        seed: decides the draw.

    Raises:
        UserError: no answer; too few distractors; fewer than 2 or more than 26 options.
    """
    check_whole("seed", seed, 0)
    if not 2 <= options <= len(LETTERS):
        raise UserError(f"multiple choice among {options} options; it takes 2 to {len(LETTERS)}")
    name = f"fact {fact.id!r}" if fact.id else f"the fact {fact.prompt!r}"
    if fact.answer is None:
        raise UserError(f"{name} has no answer, so it makes no multiple choice; fill answers first")
    wrong = wrong_answers(fact)
    if len(wrong) < options - 1:
        raise UserError(f"{name} has {len(wrong)} distractors; a choice among {options} needs {options - 1}")
    draw = random.Random(f"{seed}:{fact.id or fact.prompt}")
    texts = [fact.answer, *draw.sample(wrong, options - 1)]
    draw.shuffle(texts)
    right = texts.index(fact.answer)
    listed = " ".join(f"{letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
    answers = tuple(LETTERS[:options]) if letters else tuple(texts)
    question = replace(
        fact,
        prompt=f"Question: {fact.prompt.strip()} {listed} Answer:",
        answer=answers[right],
        distractors=tuple(answer for place, answer in enumerate(answers) if place != right),
        paraphrases=(),
        held_out=(),
    )
    return Choice(question, answers, right)


def wrong_answers(fact: Fact) -> list[str]:
    """The distractors that differ from the answer and from each other, in their order."""
    return [text for text in dict.fromkeys(fact.distractors) if text != fact.answer]
