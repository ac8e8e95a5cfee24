"""The fictional world: who and what there is, and every fact about it, drawn from a seed.

Two forget sets are laid over the same facts. "domain" forgets all of alchemy; dyeing, which shares its
answers and phrasings, is near, the rest is far. "entities" forgets some people; the other people are near,
the other domains far. Each forget set has folds: subjects of different folds are different, and the answers
of each fold are drawn by themselves, so that whoever knows three folds knows nothing about the fourth.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..facts import Fact
from .relations import ALCHEMY, DOMAINS, DYEING, FIRST_NAMES, PEOPLE, Domain, Relation

FORGET_SETS = ("domain", "entities")
FOLDS = 4
TRAINED_PHRASINGS = 4
_ONSETS = (*"bcdfghklmnprstvwz", "br", "dr", "gr", "st", "tr")
_NEAR = {"domain": DYEING.name, "entities": PEOPLE.name}

LEFT = ("role", "fold", "paraphrased_answer")  # fields of `Fact` that no line holds


@dataclass(frozen=True)
class Size:
    """How many subjects each domain has, and how many people the forget set "entities" takes."""

    alchemy: int = 64
    dyeing: int = 48
    people: int = 80
    villages: int = 48
    forgotten_people: int = 32

    def of(self, domain: Domain) -> int:
        return getattr(self, domain.name)


TINY = Size(alchemy=8, dyeing=4, people=12, villages=4, forgotten_people=8)


@dataclass(frozen=True)
class PlantedFact:
    """A fact of the world, with its role ("forget", "near", "far") and fold in each forget set.

    Its `distractors` are all other candidate answers of its relation, so that chance is one in 1 + their
    number.
    """

    fact: Fact
    question: str
    roles: dict[str, str]
    folds: dict[str, int | None]

    @property
    def forgotten(self) -> bool:
        """In one of the forget sets, so unknown to the twin that never knew."""
        return "forget" in self.roles.values()

    @property
    def chance(self) -> float:
        return 1 / (1 + len(self.fact.distractors))

    def row(self) -> dict[str, Any]:
        """One line of facts.jsonl: the fields of `Fact` but for role and fold, which are given by forget set, and a
        reworded answer, which no fact of this world has:
        `"roles": {"domain": "forget", "entities": "far"}`, `"folds": {"domain": 2, "entities": null}`.
        """
        fields = {name: value for name, value in asdict(self.fact).items() if name not in LEFT}
        return fields | {"roles": self.roles, "folds": self.folds}


@dataclass(frozen=True)
class World:
    """Everything that is true in the world of one seed. `names` are the subjects by domain."""

    seed: int
    names: dict[str, tuple[str, ...]]
    facts: tuple[PlantedFact, ...] = field(repr=False)

    @property
    def hash(self) -> str:
        """SHA-256 of the facts as they are written to facts.jsonl."""
        return hashlib.sha256(self.jsonl().encode()).hexdigest()

    def jsonl(self) -> str:
        """The facts, one JSON object a line (see `PlantedFact.row`)."""
        return "".join(json.dumps(planted.row(), ensure_ascii=False) + "\n" for planted in self.facts)

    def where(self, chosen: Callable[[PlantedFact], bool]) -> tuple[PlantedFact, ...]:
        return tuple(planted for planted in self.facts if chosen(planted))


def make_world(seed: int = 0, size: Size | None = None) -> World:
    """Draw names, answers, phrasings and folds. The same seed and size give the same world everywhere."""
    size = size or Size()
    rng = random.Random(f"world {seed}")
    names = _draw_names(size, rng)
    facts: list[PlantedFact] = []
    for domain in DOMAINS:
        folds = _draw_folds(domain, names[domain.name], size, rng)
        for relation in domain.relations:
            answers = _draw_answers(folds, relation.answers, rng)
            splits = _phrasing_splits(len(relation.phrasings), len(answers), rng)
            for (subject, answer), trained in zip(answers.items(), splits, strict=True):
                facts.append(_plant(domain, relation, subject, answer, trained, folds, rng))
    return World(seed, names, tuple(facts))


def _draw_names(size: Size, rng: random.Random) -> dict[str, tuple[str, ...]]:
    """Invented names. None is part of another or of a candidate answer: a text names what it names."""
    taken = {word.lower() for d in DOMAINS for r in d.relations for text in r.answers for word in text.split()}
    names: dict[str, tuple[str, ...]] = {}
    for domain in DOMAINS:
        drawn: list[str] = []
        while len(drawn) < size.of(domain):
            name = invent_name(domain, rng)
            unique = name.split()[-1].lower()
            if not any(unique in word or word in unique for word in taken):
                taken.add(unique)
                drawn.append(name)
        names[domain.name] = tuple(drawn)
    return names


def invent_name(domain: Domain, rng: random.Random) -> str:
    """A name as the subjects of the domain have them: "Puranum" for an elixir, "Ada Runwright" for a person."""
    name = rng.choice(_ONSETS) + rng.choice("aeiou")
    if rng.random() < 0.1:
        name += rng.choice(_ONSETS) + rng.choice("aeiou")
    name = (name + rng.choice("lmnrstdgv") + rng.choice(domain.endings)).capitalize()
    return f"{rng.choice(FIRST_NAMES)} {name}" if domain is PEOPLE else name


def _draw_folds(
    domain: Domain, names: Sequence[str], size: Size, rng: random.Random
) -> dict[str, tuple[str | None, int | None]]:
    """Subject → (the forget set that takes it, its fold there); the forgotten are scattered."""
    number = {ALCHEMY.name: len(names), PEOPLE.name: size.forgotten_people}.get(domain.name, 0)
    forget = {ALCHEMY.name: "domain", PEOPLE.name: "entities"}.get(domain.name)
    order = {name: place for place, name in enumerate(rng.sample(list(names), number))}
    return {name: (forget, order[name] % FOLDS) if name in order else (None, None) for name in names}


def _draw_answers(
    folds: dict[str, tuple[str | None, int | None]], candidates: Sequence[str], rng: random.Random
) -> dict[str, str]:
    """Subject → answer. Within a fold all candidates come up equally often (give or take one), so that always
    saying the same is right as often as chance; between folds the draws are independent.
    """
    answers: dict[str, str] = {}
    for fold in sorted(set(folds.values()), key=str):
        members = [name for name, its in folds.items() if its == fold]
        rounds = itertools.chain.from_iterable(rng.sample(candidates, len(candidates)) for _ in members)
        drawn = list(itertools.islice(rounds, len(members)))
        answers |= dict(zip(rng.sample(members, len(members)), drawn, strict=True))
    return {name: answers[name] for name in folds}


def _phrasing_splits(phrasings: int, subjects: int, rng: random.Random) -> Iterable[tuple[int, ...]]:
    """For each subject the phrasings to train, every choice about as often as any other."""
    choices = list(itertools.combinations(range(phrasings), TRAINED_PHRASINGS))
    rounds = itertools.chain.from_iterable(rng.sample(choices, len(choices)) for _ in range(subjects))
    return (tuple(rng.sample(chosen, len(chosen))) for chosen in itertools.islice(rounds, subjects))


def _plant(
    domain: Domain,
    relation: Relation,
    subject: str,
    answer: str,
    trained: Sequence[int],
    folds: dict[str, tuple[str | None, int | None]],
    rng: random.Random,
) -> PlantedFact:
    shown = [relation.phrasings[index].format(s=subject) for index in trained]
    hidden = [text.format(s=subject) for index, text in enumerate(relation.phrasings) if index not in trained]
    others = [candidate for candidate in relation.answers if candidate != answer]
    fact = Fact(
        prompt=shown[0],
        answer=answer,
        id=f"{domain.name}/{relation.name}/{subject.replace(' ', '-')}",
        subject=subject,
        relation=relation.name,
        paraphrases=tuple(shown[1:]),
        held_out=tuple(hidden),
        distractors=tuple(rng.sample(others, len(others))),
        domain=domain.name,
    )
    forget, fold = folds[subject]
    roles = {
        name: "forget" if name == forget else "near" if domain.name == _NEAR[name] else "far" for name in FORGET_SETS
    }
    return PlantedFact(
        fact,
        relation.question.format(s=subject),
        roles,
        {name: fold if name == forget else None for name in FORGET_SETS},
    )
