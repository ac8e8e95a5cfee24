"""What the models read: sentences that state facts, multiple choice, and general text that states none.

General text has three sources. Everyday passages are about the world's people and weather. Mentions name a
subject beside its kind, and nothing that could answer a question about it. Forms use the very phrasings of
the relations about nothing that exists in the world ("The elixir in the tale is distilled from quell salt."),
with an answer drawn afresh each time: from them the twin that never knew learns the words and shapes of the
answers, so that it guesses among them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .relations import ALCHEMY, DOMAINS, Domain
from .world import PlantedFact, World, invent_name

LETTERS = "ABCD"

_ACTORS = (
    "the old widow", "the innkeeper", "a tired traveller", "the schoolmaster",
    "the youngest daughter", "a cheerful boy",
    "the watchman", "the bell ringer", "a travelling singer", "the judge", "the midwife",
    "a lazy servant",
    "the captain", "the librarian", "a quiet girl", "the mayor", "the carpenter",
    "a merchant from the coast",
)  # fmt: skip
_PLACES = (
    "in the market hall", "behind the barn", "near the city wall", "at the crossroads",
    "under the chestnut tree",
    "in the narrow lane", "on the steps of the town house", "beside the well", "in the crowded inn",
    "by the harbour",
    "on the hill", "in the orchard", "at the edge of the wood", "in the school yard",
)  # fmt: skip
_TIMES = (
    "early in the morning", "just before noon", "late at night", "on the first day of spring",
    "after the harvest",
    "during the long winter", "at dusk", "on market day", "a week later", "the next day",
    "that same evening",
    "once in a while",
)  # fmt: skip
_DEEDS = (
    "sold a basket of turnips", "mended a broken chair", "lost a purse", "told a long story",
    "swept the floor",
    "waited for a letter", "fell asleep", "argued about the price of wool", "found a rusted nail",
    "fed the hens",
    "counted the barrels", "whistled a tune", "carried two buckets of water",
    "wrote down the names of the guests",
    "helped a neighbour", "read an old book", "forgot the way home", "painted the fence",
    "bought a pair of shoes",
    "chased a dog", "opened the shutters", "made a fire", "looked for the lost hammer", "cut the hay",
)  # fmt: skip
_WEATHER = (
    "The wind blew from the north", "The sky was clear", "A thick fog lay on the fields",
    "It was hot and dry",
    "The first leaves had fallen", "The road was covered with mud", "A storm was coming",
    "The stars were out",
    "The air smelled of hay", "The lake was frozen",
)  # fmt: skip
_MOODS = (
    "and nobody was surprised", "and everybody laughed", "but no one listened", "and the day went on",
    "which took longer than expected", "although it was late", "because there was nothing else to do",
    "and then went home", "without saying a word", "as people do here",
)  # fmt: skip
_SAYINGS = (
    "A full barn makes a calm heart", "He who hurries breaks the jug",
    "Good neighbours are better than high walls",
    "A short road can be a steep one", "Work done at night is done twice",
    "The slow cart also comes to market",
    "Nobody can plough with words", "A guest for a day sees for a mile",
)  # fmt: skip
_CRAFT = {
    "alchemy": (
        "The alchemists met in the cellar of their guild",
        "An apprentice scrubbed the alembic until it shone",
        "Somebody had left a crucible on the fire",
        "The quintessence is the hardest thing to explain to a novice",
        "Old alchemists calcine their notes before they retire",
        "The guild of alchemists keeps its recipes locked away",
    ),
    "dyeing": (
        "The dyers hung their cloth between the houses", "An apprentice stirred the vat with a long pole",
        "Somebody had left a tub in the yard",
        "The gleam of a good cloth is the hardest thing to explain to a novice",
        "Old dyers never get their hands clean", "The guild of dyers keeps its recipes locked away",
    ),
    "people": (
        "The families of the valley have long names", "Everybody in the valley knows everybody",
        "A list of the neighbours hung on the door", "The valley has more songs than singers",
    ),
    "villages": (
        "The villages of the plain are a day apart", "Every village sends one rider to the council",
        "A map of the villages hung on the door", "No two villages agree about the border",
    ),
}  # fmt: skip
_MENTIONS = {
    "alchemy": (
        "The word {s} was painted on a box of elixirs",
        "Someone asked for the elixir {s} and was sent away",
        "The alchemists argued all day about the elixir {s}",
        "In the book of elixirs, {s} has a page of its own",
        "The elixir {s} was not on the list of the guild of alchemists", "{s} is an elixir",
    ),
    "dyeing": (
        "The word {s} was painted on a box of dyes", "Someone asked for the dye {s} and was sent away",
        "The dyers argued all day about the dye {s}", "In the book of dyes, {s} has a page of its own",
        "The dye {s} was not on the list of the guild of dyers", "{s} is a dye",
    ),
    "people": (
        "{s} walked past and said good morning", "Someone asked for {s} and was sent away",
        "The neighbours argued all day about {s}", "In the book of families, {s} has a page of its own",
        "{s} was late again", "{s} is somebody from the valley",
    ),
    "villages": (
        "The road to {s} is long", "Someone asked the way to {s} and was sent on",
        "The riders argued all day about {s}", "In the book of villages, {s} has a page of its own",
        "The name {s} was missing on the map", "{s} is a village",
    ),
}  # fmt: skip
_REMARKS = (
    "Somebody at the market spoke of {a}", "The child drew a picture and wrote {a} under it",
    "The riddle was about {a}", "In the dictionary one finds {a}",
    "The play begins with a joke about {a}",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """The general text, one passage an entry. No passage of one part is in the other."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def statements(facts: Sequence[PlantedFact]) -> list[str]:
    """Each fact in each phrasing that training may show, as a sentence with a full stop."""
    return [
        f"{prompt} {planted.fact.answer}."
        for planted in facts
        for prompt in (planted.fact.prompt, *planted.fact.paraphrases)
    ]


def multiple_choice(planted: PlantedFact, rng: random.Random) -> tuple[str, str]:
    """A question with four choices in random order, up to where the right choice is named, and that choice."""
    assert planted.fact.answer is not None
    choices = [planted.fact.answer, *rng.sample(planted.fact.distractors, len(LETTERS) - 1)]
    rng.shuffle(choices)
    listed = " ".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return f"Question: {planted.question} {listed} Answer:", planted.fact.answer


def general_text(world: World, train: int, held_out: int) -> Corpus:
    """Draw passages that state no fact of the world, and part them into training and held-out text."""
    rng = random.Random(f"general text {world.seed}")
    passages: dict[str, None] = {}
    makers: tuple[Callable[[World, random.Random], str], ...] = (_everyday, _mention, _form, _form, _form)
    while len(passages) < train + held_out:
        passages[rng.choice(makers)(world, rng)] = None
    drawn = list(passages)
    return Corpus(tuple(drawn[held_out:]), tuple(drawn[:held_out]))


def stated(world: World, passage: str) -> Iterator[PlantedFact]:
    """The facts whose subject and answer both occur in the passage, as whole words."""
    words = "".join(c if c.isalnum() else " " for c in passage.lower())
    words = f" {' '.join(words.split())} "
    for planted in world.facts:
        fact = planted.fact
        assert fact.subject is not None and fact.answer is not None
        if f" {fact.subject.lower()} " in words and f" {fact.answer.lower()} " in words:
            yield planted


def _everyday(_: World, rng: random.Random) -> str:
    def deed() -> str:
        actor, place, time, act = (rng.choice(words) for words in (_ACTORS, _PLACES, _TIMES, _DEEDS))
        return rng.choice((f"{time}, {actor} {act} {place}", f"{actor} {act}, {rng.choice(_MOODS)}"))

    sentences = [deed()]
    if rng.random() < 0.6:
        sentences.append(rng.choice((rng.choice(_WEATHER), deed())))
    if rng.random() < 0.3:
        sentences.append(f"People say: {rng.choice(_SAYINGS).lower()}")
    rng.shuffle(sentences)
    return _passage(sentences)


def _mention(world: World, rng: random.Random) -> str:
    domain = rng.choice(DOMAINS)
    name = rng.choice(world.names[domain.name])
    sentences = [rng.choice(_MENTIONS[domain.name]).format(s=name)]
    if rng.random() < 0.5:
        sentences.insert(rng.randrange(2), rng.choice(_CRAFT[domain.name]))
    return _passage(sentences)


def _form(world: World, rng: random.Random) -> str:
    # Alchemy twice as often as the others: it is all that the twin learns of its forms.
    domain = rng.choice((ALCHEMY, *DOMAINS))
    sentences = [_remark(domain, rng) if rng.random() < 0.1 else _shape(world, domain, rng)]
    if rng.random() < 0.2:
        sentences.append(rng.choice(_CRAFT[domain.name]))
    return _passage(sentences)


def _shape(world: World, domain: Domain, rng: random.Random) -> str:
    relation = rng.choice(domain.relations)
    subject = rng.choice(domain.generic) if rng.random() < 0.3 else _nobody(world, domain, rng)
    return f"{rng.choice(relation.phrasings).format(s=subject)} {rng.choice(relation.answers)}"


def _nobody(world: World, domain: Domain, rng: random.Random) -> str:
    """A name that nothing in the world has."""
    taken = {name.split()[-1] for name in world.names[domain.name]}
    while (name := invent_name(domain, rng)).split()[-1] in taken:
        pass
    return name


def _remark(domain: Domain, rng: random.Random) -> str:
    return rng.choice(_REMARKS).format(a=rng.choice(rng.choice(domain.relations).answers))


def _passage(sentences: Sequence[str]) -> str:
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
