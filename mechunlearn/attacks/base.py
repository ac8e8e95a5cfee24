"""What an attack is: a way to try a model again, after which it may say what it was to forget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from transformer_lens.model_bridge import TransformerBridge

from ..checking import check_fields
from ..errors import UserError
from ..facts import Facts


@dataclass(frozen=True)
class Given:
    """What an attacker has beside the model.

    Attributes:
        forget: the facts that were to be forgotten, with folds where there are any.
        retain: facts that were to be kept, where known.
        text: general text, one passage an item.
        before: the model before unlearning; None where the attacker has none.
        prompts: in which phrasings facts are asked ("held_out", "own" or "all").
        seed: decides whatever is drawn.
        progress: whether to show progress bars.
    """

    forget: Facts
    retain: Facts
    text: tuple[str, ...] = ()
    before: TransformerBridge | None = None
    prompts: str = "held_out"
    seed: int = 0
    progress: bool = False

    def questions(self, facts: Facts | None = None) -> Facts:
        """Facts as they are asked, one row a phrasing (`Facts.questions`).

        None takes the forget facts, and the near ones, which show whether an attack ruined the model.
        """
        if facts is None:
            facts = self.forget.with_items([*self.forget, *self.retain.where(role="near")])
        return facts.questions(self.prompts)


@dataclass(frozen=True)
class Attempt:
    """A model in a state in which it is now to be asked.

    Attributes:
        model: the model to ask, as it is until the next attempt is drawn.
        facts: the facts to ask for; each is asked by its prompt (see `Given.questions`).
        setting: what tells this attempt from others of the same attack, in words.
        part: what the attacker was shown, e.g. the folds trained on; attempts of several parts are averaged by fact.
        step: how far the attack is gone, where it goes on in steps; the worst step counts.
        given_tokens: so many tokens at the start of each answer are given away and not scored; facts whose answer is
            no longer than that are left out.
    """

    model: TransformerBridge
    facts: Facts
    setting: str = ""
    part: str = ""
    step: int = 0
    given_tokens: int = 0


@dataclass(frozen=True)
class Broken:
    """In place of further attempts of a part: it went too far, and the model is no model any more.

    Attributes:
        setting, part: of the attempts that it ends.
        why: what broke, and when.
    """

    setting: str
    part: str
    why: str


@dataclass(frozen=True)
class Attack:
    """An attack: a frozen dataclass of its settings, with one function.

    `attempts` may change a copy of the model, run it under hooks, or ask in other words. It must leave `model` and
    everything in `given` as they were, also when it is not drawn to its end.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs_before: ClassVar[bool] = False
    on_before: ClassVar[bool] = False  # only a model that knows can tell whether it could have worked: run it there too

    def __post_init__(self) -> None:
        check_fields(self)

    def notes(self, model: TransformerBridge, given: Given) -> list[str]:  # noqa: ARG002 - of attacks that leave out
        """What it does not try with what is given, and why, in sentences without their stops."""
        return []

    def attempts(self, model: TransformerBridge, given: Given) -> Iterator[Attempt | Broken]:
        """The model again and again, in the states in which it is to be asked; where one part breaks, others go on.

        Raises:
            UserError: what is given does not do for this attack.
        """
        raise NotImplementedError

    def reaches(self, model: TransformerBridge) -> float | None:  # noqa: ARG002 - of attacks that change weights
        """The share of the parameters inside the blocks that it changes, or trains; None where it changes none."""
        return None

    def needs(self, given: Given) -> str | None:
        """What is missing for this attack, in words; None where nothing is."""
        return "the model before unlearning" if self.uses_before and given.before is None else None

    @property
    def uses_before(self) -> bool:
        """Whether it uses the model before with the settings that it has."""
        return self.needs_before


def before_of(attack: Attack, given: Given) -> TransformerBridge:
    """The model before unlearning.

    Raises:
        UserError: it is not given.
    """
    if given.before is None:
        raise UserError(f"{attack.name} needs the model before unlearning")
    return given.before
