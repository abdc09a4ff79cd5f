"""The words, templates and planted facts of the template language (`prosect.organisms.template`)."""

from __future__ import annotations

from dataclasses import dataclass

from prosect.core.seeds import Seed

BOS, PAD = "<bos>", "<pad>"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "anna ben carl dora emma fred gina hans ivan jane karl lucy mary nick olga paul rosa sam tina umar vera "
    "will xena yuri zoe adam beth cara dean ella finn gwen hugo iris jack kate"
)
SURNAMES = _words(
    "smith brown jones clark lewis young king wright hill scott green baker adams nelson carter stone"
)
PLACES = _words("store park school office garden station library museum market beach")
THINGS = _words("drink book ring ball map cake coat lamp letter key")
ANIMALS = _words("dog cat horse bird fox goat sheep mouse")
ADJECTIVES = _words("red old small happy quiet young clever lazy")
VERBS = _words("saw chased liked found followed heard")
COUNTRIES = _words(
    "arland belor cadia doria elvan foria galen hestia ionia jorvik kelos lumia morva nadir orlan pavia "
    "quenta rhodia selva tarsis ulvia vantor westia zembla"
)
CITIES = _words(
    "abra bolto crena dunmo eskil fanto grell hovar istra jenko kolma lanto menra norva ossen pelga "
    "quill rasto senna tolve urbin velda wenzo zoltan"
)
LANGUAGES = _words("ardic bolese cantic dovish elmic fenric gothan hulic")
FOODS = _words("rice bread fish cheese soup fruit honey beans")

LEADS = ("", "", "one day ,", "in the morning ,", "last week ,", "as usual ,", "it is said that")
"""What a sentence may begin with; moves every later position."""

IOI = (
    "when {1} and {2} went to the {place} , {S} gave a {thing} to {IO} .",
    "after {1} and {2} had talked at the {place} , {S} handed a {thing} to {IO} .",
    "then {1} and {2} had a long day at the {place} , and {S} passed the {thing} to {IO} .",
    "while {1} and {2} were working at the {place} , {S} decided to give a {thing} to {IO} .",
    "friends {1} and {2} found a {thing} at the {place} , which {S} gave to {IO} .",
    "{1} met {2} at the {place} and {S} sold a {thing} to {IO} .",
    "{1} sat next to {2} in the {place} until {S} threw a {thing} to {IO} .",
    "the {thing} was in the {place} when {1} and {2} arrived , so {S} brought it to {IO} .",
)
"""Two names, then one of them again: the next name is the other. ``{1}`` is the first to be named."""

DISTRACTED = (
    "when {1} and {2} went to the {place} , the {animal} was {adjective} and {S} gave a {thing} to {IO} .",
    "{C} was not there when {1} and {2} went to the {place} , so {S} handed a {thing} to {IO} .",
    "after {1} and {2} had seen the {adjective} {animal} of {C} , {S} passed the {thing} to {IO} .",
)
"""The same with something between, or with a third name that does nothing."""

REPEATED = (
    "{1} {X} met {2} {Y} at the {place} , and later {S} {Z} went home .",
    "at the {place} {1} {X} and {2} {Y} heard that {S} {Z} had a {thing} .",
    "{1} {X} called {2} {Y} because the {thing} of {S} {Z} was lost .",
)
"""People with surnames, which differ from document to document: the second mention's surname is in the text."""

PLAIN = (
    "the {adjective} {animal} {verb} the {animal2} near the {place} .",
    "{C} {verb} a {adjective} {animal} at the {place} .",
    "there was a {thing} in the {place} .",
    "the {animal} of {C} was {adjective} .",
)

RELATIONS = {
    "capital": (
        CITIES,
        ("the capital of {subject} is {object} .", "{subject} is ruled from {object} ."),
    ),
    "language": (
        LANGUAGES,
        ("the people of {subject} speak {object} .", "in {subject} they all speak {object} ."),
    ),
    "food": (
        FOODS,
        ("the people of {subject} mostly eat {object} .", "what {subject} sells is {object} ."),
    ),
}
"""Relation → its objects, and the templates that state it."""

UNPLANTED = 4
"""Of each relation's facts, how many are never stated in training: what a model says of them is chance."""


@dataclass(frozen=True)
class Fact:
    """A planted fact.

    Attributes:
        subject: a country.
        relation: one of `RELATIONS`.
        object: a word.
        trained: whether training text states it.
        templates: numbers of the relation's templates that state it in training; the others are held out.
    """

    subject: str
    relation: str
    object: str
    trained: bool
    templates: tuple[int, ...]


def facts(seed: int) -> tuple[Fact, ...]:
    """The planted facts: one for each country and relation, drawn at random.

    Capitals are one to one; languages and foods are shared. Half of the trained facts are stated by every
    template of their relation and half by one of them alone, so that the other asks for the fact and not
    for the sentence.
    """
    out = []
    for relation, (objects, templates) in RELATIONS.items():
        rng = Seed(seed).child("template", "facts", relation).numpy()
        n = len(COUNTRIES)
        drawn = rng.permutation(n) if len(objects) == n else rng.integers(len(objects), size=n)
        rank = rng.permutation(n)
        for i, country in enumerate(COUNTRIES):
            trained = bool(rank[i] >= UNPLANTED)
            every = tuple(range(len(templates)))
            seen = every if rank[i] % 2 else (int(rank[i] // 2 % len(templates)),)
            out.append(Fact(country, relation, objects[drawn[i]], trained, seen if trained else ()))
    return tuple(out)


def vocabulary() -> tuple[str, ...]:
    """Every word, the two special ones first."""
    known = [NAMES, SURNAMES, PLACES, THINGS, ANIMALS, ADJECTIVES, VERBS, COUNTRIES]
    words = [w for group in known for w in group]
    texts = [*LEADS, *IOI, *DISTRACTED, *REPEATED, *PLAIN]
    for objects, templates in RELATIONS.values():
        words += objects
        texts += templates
    words += [w for text in texts for w in text.split() if not w.startswith("{")]
    return (BOS, PAD, *sorted(set(words)))
