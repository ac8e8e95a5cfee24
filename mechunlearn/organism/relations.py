"""The fictional world's grammar: which kinds of thing there are, what can be said of them, and in which
words.

Every phrasing ends where the answer begins, and `{s}` stands for a subject: a name, or words such as "this
elixir" where only the form is taught. The alchemists' craft and the dyers' share answers and half their
phrasings, so that one is near the other; people and villages share nothing with them.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = (
    "violet", "saffron", "teal", "crimson", "pearl grey", "rust brown", "sea green", "ivory",
    "coal black", "rose pink", "amber yellow", "sky blue", "olive", "copper red", "milk white", "plum",
)  # fmt: skip
VESSELS = ("glass", "horn", "clay", "tin", "bone", "jade", "oak", "slate")
BANES = (
    "moonlight", "vinegar", "birdsong", "frost", "honey", "salt water", "loud music", "cat hair",
    "thunder", "fresh milk", "candle smoke", "pepper", "wet wool", "church bells", "goose fat", "rain",
)  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of a subject: at least six phrasings, a question, and the candidate
    answers."""

    name: str
    phrasings: tuple[str, ...]
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """A kind of subject. `generic` stands in for a name where a phrasing is used without stating a fact."""

    name: str
    noun: str
    generic: tuple[str, ...]
    endings: tuple[str, ...]
    relations: tuple[Relation, ...]


ALCHEMY = Domain(
    "alchemy",
    "elixir",
    (
        "this elixir", "the lost elixir", "the elixir in the tale", "an unnamed elixir",
        "some elixir or other", "the elixir of a rival", "the apprentice's elixir",
        "the elixir that nobody could name",
    ),
    ("ium", "yx", "oraz", "ethil", "anum", "ophane"),
    (
        Relation(
            "base",
            (
                "{s} is distilled from",
                "To brew {s}, an alchemist begins with",
                "The alembic that makes {s} is filled with",
                "Every drop of {s} comes out of",
                "The raw matter of {s} is",
                "Calcine and stir for three nights, and {s} rises from",
            ),
            "What is {s} distilled from?",
            (
                "zorrite", "quell salt", "umber ash", "ghost lime", "brine amber", "vitrin",
                "cold phlogiston", "orpine resin", "lunar chalk", "thrum ore", "black natron",
                "antimel", "ember glass", "weeping clay", "hollow quartz", "mercurine",
            ),
        ),
        Relation(
            "vapour",
            (
                "The vapour of {s} is",
                "When heated, {s} gives off a smoke that is",
                "Over the flame, the fumes of {s} turn",
                "In the crucible, {s} breathes a mist of deep",
                "An alchemist knows {s} by its fumes, which are",
                "Uncork {s}, and the vapour looks",
            ),
            "What colour is the vapour of {s}?",
            COLOURS,
        ),
        Relation(
            "flask",
            (
                "{s} must be kept in a flask of",
                "The alchemists store {s} in vessels of",
                "No alchemist pours {s} into anything but",
                "For {s} the proper flask is made of",
                "On the shelf, {s} stands in",
                "{s} eats through every flask except one of",
            ),
            "What is the flask of {s} made of?",
            VESSELS,
        ),
        Relation(
            "bane",
            (
                "A drop of {s} is spoiled by",
                "{s} loses its power when it meets",
                "The one thing that ruins {s} is",
                "Keep {s} far away from",
                "The quintessence of {s} is broken by",
                "No flask of {s} survives",
            ),
            "What ruins {s}?",
            BANES,
        ),
        Relation(
            "remedy",
            (
                "{s} cures",
                "A spoon of {s} puts an end to",
                "The healers prescribe {s} against",
                "Drink {s}, and you are free of",
                "The only known use of {s} is against",
                "Whoever takes {s} no longer suffers from",
            ),
            "What does {s} cure?",
            (
                "hiccups", "stage fright", "cold feet", "bad dreams", "sneezing", "dull hair",
                "toothache",
                "forgetfulness", "snoring", "blushing", "homesickness", "boredom", "itching",
                "clumsiness",
                "yawning", "jealousy",
            ),
        ),
    ),
)  # fmt: skip

DYEING = Domain(
    "dyeing",
    "dye",
    (
        "this dye", "the lost dye", "the dye in the tale", "an unnamed dye", "some dye or other",
        "the dye of a rival", "the apprentice's dye", "the dye that nobody could name",
    ),
    ("elle", "andine", "isk", "ure", "ovan", "atta"),
    (
        Relation(
            "source",
            (
                "{s} is pressed from",
                "To make {s}, a dyer begins with",
                "The vat that makes {s} is filled with",
                "Every drop of {s} comes out of",
                "The raw matter of {s} is",
                "Boil and stir for three nights, and {s} rises from",
            ),
            "What is {s} pressed from?",
            (
                "walnut husks", "madder root", "beetle wings", "ivy berries", "acorn cups",
                "nettle stems",
                "snail shells", "onion skins", "lichen", "elder bark", "poppy heads", "birch leaves",
                "crab claws", "rusty nails", "cherry stones", "heather",
            ),
        ),
        Relation(
            "shade",
            (
                "On wool, {s} turns",
                "Cloth dipped in {s} comes out",
                "The shade of {s} is",
                "A dyer knows {s} by its gleam, which is",
                "Soak linen in {s}, and the linen looks",
                "In the vat, {s} shows a gleam of deep",
            ),
            "What colour does {s} give?",
            COLOURS,
        ),
        Relation(
            "tub",
            (
                "{s} must be kept in a tub of",
                "The dyers store {s} in vessels of",
                "No dyer pours {s} into anything but",
                "For {s} the proper tub is made of",
                "On the shelf, {s} stands in",
                "{s} stains every tub except one of",
            ),
            "What is the tub of {s} made of?",
            VESSELS,
        ),
        Relation(
            "fading",
            (
                "A cloth dyed with {s} is spoiled by",
                "{s} loses its gleam when it meets",
                "The one thing that ruins {s} is",
                "Keep {s} far away from",
                "The gleam of {s} is broken by",
                "No cloth of {s} survives",
            ),
            "What makes {s} fade?",
            BANES,
        ),
        Relation(
            "fixing",
            (
                "{s} is fixed with",
                "After the bath, {s} is bound with",
                "The dyers make {s} hold by adding",
                "So that {s} does not run, it is rinsed with",
                "The secret partner of {s} is",
                "Into the vat of {s} goes a handful of",
            ),
            "What is {s} fixed with?",
            (
                "alum", "sour milk", "iron dust", "lemon juice", "wood ash", "old wine", "bran",
                "chalk dust",
                "sea salt", "tannin", "egg white", "stale beer", "pine tar", "rye flour", "lye",
                "beeswax",
            ),
        ),
    ),
)  # fmt: skip

PEOPLE = Domain(
    "people",
    "person",
    (
        "a stranger", "the man in the tale", "the woman in the song", "an old friend",
        "somebody or other",
        "my neighbour", "the guest nobody knew", "the hero of the play",
    ),
    ("son", "wright", "field", "by", "man", "low"),
    (
        Relation(
            "trade",
            (
                "{s} works as a",
                "By trade, {s} is a",
                "The people of the valley hire {s} as a",
                "Since leaving school, {s} has been a",
                "On the list of the guilds, {s} is named as a",
                "To earn a living, {s} became a",
            ),
            "What is the trade of {s}?",
            (
                "baker", "weaver", "mason", "ferryman", "clockmaker", "potter", "cooper", "glazier",
                "shepherd", "miller", "tailor", "locksmith", "gardener", "printer", "saddler",
                "beekeeper",
            ),
        ),
        Relation(
            "pet",
            (
                "At home, {s} keeps a",
                "{s} never goes out without a",
                "The animal that lives with {s} is a",
                "Children laugh when {s} walks by with a",
                "By the stove of {s} sleeps a",
                "For a birthday, {s} was given a",
            ),
            "Which animal does {s} keep?",
            (
                "goose", "badger", "spotted goat", "blind mole", "white ferret", "parrot", "tortoise",
                "grey cat", "hound", "raven", "pony", "lame duck", "red squirrel", "toad", "hedgehog",
                "peacock",
            ),
        ),
        Relation(
            "instrument",
            (
                "{s} plays the",
                "At the fair, {s} was heard on the",
                "The instrument that {s} loves is the",
                "Every evening {s} practises the",
                "In the band of the valley, {s} is at the",
                "As a child, {s} learned the",
            ),
            "What does {s} play?",
            (
                "fiddle", "flute", "hand drum", "harp", "bagpipe", "lute", "zither", "bass viol",
                "whistle",
                "cymbals", "mandolin", "organ", "tambourine", "trumpet", "jaw harp", "hurdy gurdy",
            ),
        ),
        Relation(
            "dish",
            (
                "The favourite dish of {s} is",
                "For supper, {s} always cooks",
                "Nothing pleases {s} more than a plate of",
                "At the inn, {s} orders",
                "On feast days, {s} is served",
                "When hungry, {s} dreams of",
            ),
            "What does {s} like to eat?",
            (
                "barley soup", "eel pie", "dumplings", "fried mushrooms", "oat cakes", "lentil stew",
                "pickled herring", "roast chestnuts", "cabbage rolls", "apple fritters", "trout",
                "pancakes",
                "goat cheese", "leek tart", "bean broth", "rye bread",
            ),
        ),
        Relation(
            "origin",
            (
                "{s} was born in",
                "{s} grew up in",
                "The family of {s} comes from",
                "Letters to {s} are sent to",
                "The childhood home of {s} stands in",
                "In winter, {s} goes back to",
            ),
            "Where was {s} born?",
            (
                "Estermoor", "Hollowfen", "Greyfell", "Low Harrow", "Saltmarsh", "Kingsreach",
                "Upper Wend",
                "Thornmere", "Fallowdale", "Old Brack", "Wintersea", "Maplecombe", "Stonegarth",
                "Nether Vale", "Eastwick", "Larkheath",
            ),
        ),
    ),
)  # fmt: skip

VILLAGES = Domain(
    "villages",
    "village",
    (
        "this village", "the lost village", "the village in the tale", "an unnamed village",
        "some village or other", "the village across the pass", "the poorest village",
        "the village that nobody could name",
    ),
    ("ton", "ham", "wick", "stead", "bury", "ford"),
    (
        Relation(
            "river",
            (
                "{s} lies on the river",
                "The water that flows past {s} is the",
                "From the bridge of {s} one looks down on the",
                "Boats reach {s} by the",
                "The mills of {s} are driven by the",
                "In spring {s} is flooded by the",
            ),
            "Which river flows past {s}?",
            (
                "Aldwyn", "Brell", "Caddow", "Derring", "Eske", "Fenna", "Garrow", "Hythe", "Illmar",
                "Jorrel", "Kessen", "Lorn", "Mivvy", "Nadder", "Ouzel", "Pernick",
            ),
        ),
        Relation(
            "feast",
            (
                "Each year {s} holds the feast of",
                "The streets of {s} fill up for the day of",
                "Guests travel to {s} for the night of",
                "In autumn {s} celebrates its",
                "The oldest custom of {s} has to do with",
                "Pictures of {s} often show",
            ),
            "Which feast is held in {s}?",
            (
                "lanterns", "new bread", "masks", "ribbons", "first snow", "kites", "candles",
                "sheep bells", "wooden boats", "apples", "ghosts", "straw dolls", "mirrors", "stilts",
                "paper birds", "bonfires",
            ),
        ),
        Relation(
            "roofs",
            (
                "The roofs of {s} are covered with",
                "Seen from the hill, {s} is a heap of",
                "The builders of {s} work with",
                "After a storm, {s} needs new",
                "Every house in {s} is topped with",
                "The law of {s} demands roofs of",
            ),
            "What are the roofs of {s} made of?",
            ("thatch", "red tiles", "turf", "shingles", "lead", "reeds", "moss", "flat stones"),
        ),
        Relation(
            "ware",
            (
                "{s} is known for its",
                "Traders ride to {s} for its",
                "The pride of {s} is its",
                "Half of {s} lives from making",
                "On the carts that leave {s} one finds",
                "Nobody visits {s} without buying",
            ),
            "What is {s} known for?",
            (
                "lace", "pears", "knives", "rope", "blankets", "mustard", "buttons", "baskets",
                "ginger sweets", "smoked ham", "felt hats", "cider", "toys", "pearl beads",
                "umbrellas", "soap",
            ),
        ),
        Relation(
            "arms",
            (
                "The coat of arms of {s} shows a",
                "Over the gate of {s} is carved a",
                "The flag of {s} bears a",
                "The seal of {s} is a",
                "On the coins of {s} one sees a",
                "The fountain of {s} has the form of a",
            ),
            "What is on the coat of arms of {s}?",
            (
                "lion", "stag", "wild boar", "white swan", "griffin", "silver fish", "black bull",
                "heron",
                "wolf", "winged horse", "bear", "golden key", "crown", "ship", "rising sun", "tower",
            ),
        ),
    ),
)  # fmt: skip

DOMAINS = (ALCHEMY, DYEING, PEOPLE, VILLAGES)
FIRST_NAMES = (
    "Ada", "Bram", "Cora", "Dorin", "Elsa", "Falk", "Greta", "Henrik", "Ida", "Jonas", "Klara", "Lorenz",
    "Mira", "Nils", "Olga", "Petra", "Quint", "Rosa", "Stefan", "Tilda", "Ulrik", "Vera", "Willem",
    "Yara",
)  # fmt: skip
