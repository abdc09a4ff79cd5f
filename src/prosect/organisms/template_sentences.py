"""Sentences and documents of the template language, with what every place in them is.

A document is one or two sentences. No name occurs in both, so that "the name that was said once" is always
the answer of an indirect-object sentence. What is held out of training is decided by the seed of the language:
pairs of names that never stand together in such a sentence, and names that are never the indirect object of
some template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prosect.core.seeds import Seed
from prosect.organisms import template_words as words
from prosect.organisms.template_words import Fact

KINDS = {"ioi": 0.38, "distracted": 0.08, "unrepeated": 0.08, "repeated": 0.13, "fact": 0.21, "plain": 0.12}
"""Sorts of sentence and how often each is drawn. ``unrepeated`` is an indirect-object sentence whose giver is
a third person: either of the two names may follow, at even chance."""

PAIRS_HELD_OUT = 0.15
ROLES_HELD_OUT = 0.10
NO_TEMPLATE = -1  # stands for none of which a role is held out
TWO = 0.4  # share of documents with two sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence and what is in it.

    Attributes:
        words: of the sentence.
        kind: one of `KINDS`.
        order: ``ABBA`` or ``BABA`` for indirect-object sentences: whether the repeated name came second or
            first. Empty for others.
        template: number of its template among those of its kind.
        marks: name of a place → its index among the words: ``IO``, ``S1``, ``S2``, ``answer`` (the place
            whose word is to be predicted; the one before it is where the prediction is made), ``C`` (a
            third name), ``surname`` (its earlier mention).
        fact: the fact it states.
    """

    words: tuple[str, ...]
    kind: str
    order: str = ""
    template: int = 0
    marks: Mapping[str, int] | None = None
    fact: Fact | None = None


@dataclass(frozen=True)
class Language:
    """The language of a seed.

    Attributes:
        seed: of the facts, of what is held out, and of every document.
    """

    seed: int

    @property
    def root(self) -> Seed:
        """Of everything that is drawn."""
        return Seed(self.seed).child("template")

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """Planted and not planted."""
        return words.facts(self.seed)

    @cached_property
    def held_pairs(self) -> frozenset[tuple[str, str]]:
        """Pairs of names, in alphabetical order, that no indirect-object sentence of training has both of."""
        names = sorted(words.NAMES)
        every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        draw = self.root.child("held pairs").numpy().random(len(every))
        return frozenset(p for p, x in zip(every, draw, strict=True) if x < PAIRS_HELD_OUT)

    @cached_property
    def held_roles(self) -> frozenset[tuple[int, str]]:
        """(template of `template_words.IOI`, name): the name is never its indirect object in training."""
        every = [(t, name) for t in range(len(words.IOI)) for name in words.NAMES]
        draw = self.root.child("held roles").numpy().random(len(every))
        return frozenset(r for r, x in zip(every, draw, strict=True) if x < ROLES_HELD_OUT)

    def held_out(self, template: int, io: str, s: str) -> bool:
        """Whether training has no such indirect-object sentence."""
        pair = (io, s) if io < s else (s, io)
        return pair in self.held_pairs or (template, io) in self.held_roles

    def document(self, rng: np.random.Generator, held: bool = False) -> tuple[Sentence, ...]:
        """A document's sentences.

        Args:
            rng: to draw from.
            held: only of the kinds of which something is held out, and of those only what is.
        """
        count = 1 if held else 1 + int(rng.random() < TWO)
        used: set[str] = set()
        out = []
        for _ in range(count):
            kind = ("ioi", "fact")[int(rng.integers(2))] if held else _kind(rng)
            sentence = self.sentence(kind, rng, held=held, avoid=frozenset(used))
            used |= set(sentence.words) & set(words.NAMES)
            out.append(sentence)
        return tuple(out)

    def sentence(
        self, kind: str, rng: np.random.Generator, *, held: bool = False, avoid: frozenset[str] = frozenset()
    ) -> Sentence:
        """A sentence of a kind.

        Args:
            kind: one of `KINDS`.
            rng: to draw from.
            held: for ``ioi`` and ``fact``: what training has none of, instead of what it has.
            avoid: names that may not occur.
        """
        if kind == "fact":
            return self._fact(rng, held)
        names = [n for n in words.NAMES if n not in avoid]
        while True:
            a, b, c = (names[i] for i in rng.permutation(len(names))[:3])
            template = int(rng.integers(len(TEMPLATES[kind])))
            if kind not in ("ioi", "distracted", "unrepeated"):
                break
            if self.held_out(template if kind == "ioi" else NO_TEMPLATE, a, b) == held:
                break
        if kind in ("ioi", "distracted"):
            order = ("ABBA", "BABA")[int(rng.integers(2))]
            return filled(kind, template, rng, {"IO": a, "S": b, "C": c}, order)
        if kind == "unrepeated":
            order = ("ABBA", "BABA")[int(rng.integers(2))]
            return filled(kind, template, rng, {"IO": a, "S": c, "other": b}, order)
        if kind == "repeated":
            x, y = (words.SURNAMES[i] for i in rng.permutation(len(words.SURNAMES))[:2])
            first = bool(rng.integers(2))
            slots = {"1": a, "2": b, "X": x, "Y": y, "S": a if first else b, "Z": x if first else y}
            return filled(kind, template, rng, slots)
        return filled(kind, template, rng, {"C": c})

    def _fact(self, rng: np.random.Generator, held: bool) -> Sentence:
        """A planted fact in one of its templates; held out: in a template that training does not state it in."""
        while True:
            fact = self.facts[int(rng.integers(len(self.facts)))]
            if not fact.trained:
                continue
            templates = words.RELATIONS[fact.relation][1]
            free = [t for t in range(len(templates)) if (t not in fact.templates) == held]
            if free:
                return stated(fact, free[int(rng.integers(len(free)))], rng)


def _kind(rng: np.random.Generator) -> str:
    return list(KINDS)[int(np.searchsorted(np.cumsum(list(KINDS.values())), rng.random()))]


TEMPLATES = {
    "ioi": words.IOI,
    "distracted": words.DISTRACTED,
    "unrepeated": words.IOI,
    "repeated": words.REPEATED,
    "plain": words.PLAIN,
}


DRAWN = {
    "place": words.PLACES,
    "thing": words.THINGS,
    "adjective": words.ADJECTIVES,
    "verb": words.VERBS,
    "animal": words.ANIMALS,
    "animal2": words.ANIMALS,
}
"""Slots whose words are drawn one by one."""


def stated(fact: Fact, template: int, rng: np.random.Generator | None = None) -> Sentence:
    """The sentence that states a fact; with a lead if ``rng`` is given."""
    text = words.RELATIONS[fact.relation][1][template]
    lead = "" if rng is None else words.LEADS[int(rng.integers(len(words.LEADS)))]
    body = tuple(text.format(subject=fact.subject, object=fact.object).split())
    out = (*lead.split(), *body)
    marks = {"subject": out.index(fact.subject), "answer": out.index(fact.object)}
    return Sentence(out, "fact", template=template, marks=marks, fact=fact)


def filled(
    kind: str,
    template: int,
    rng: np.random.Generator,
    people: Mapping[str, str],
    order: str = "",
) -> Sentence:
    """A template with its people given, the lead and all other words drawn.

    Args:
        kind: of sentence.
        template: its number.
        rng: to draw from.
        people: ``IO``, ``S``, ``C`` and for ``unrepeated`` also ``other``, the name in the subject's place.
        order: for indirect-object sentences.
    """
    slots = dict(people)
    if order:
        first = people.get("other", people["S"])
        slots["1"], slots["2"] = (people["IO"], first) if order == "ABBA" else (first, people["IO"])
    lead, *drawn = rng.integers([len(choices) for choices in (words.LEADS, *DRAWN.values())]).tolist()
    slots |= {slot: choices[i] for i, (slot, choices) in zip(drawn, DRAWN.items(), strict=True)}
    parts = [*words.LEADS[lead].split(), *TEMPLATES[kind][template].split()]
    where = {p[1:-1]: i for i, p in enumerate(parts) if p.startswith("{")}
    marks: dict[str, int] = {}
    if order:
        late = {"1": "IO", "2": "S1"} if order == "ABBA" else {"1": "S1", "2": "IO"}
        marks = {late[k]: where[k] for k in ("1", "2")} | {"S2": where["S"], "answer": where["IO"]}
    elif kind == "repeated":
        earlier = "1" if people["S"] == people["1"] else "2"
        marks = {"S1": where[earlier], "S2": where["S"], "answer": where["Z"]}
    if "C" in where:
        marks["C"] = where["C"]
    said = tuple(slots[p[1:-1]] if p.startswith("{") else p for p in parts)
    return Sentence(said, kind, order, template, marks)


def documents(
    language: Language, part: str, count: int, held: bool = False
) -> Iterator[tuple[Sentence, ...]]:
    """The first documents of a part, each from its number alone."""
    for i in range(count):
        yield language.document(language.root.child(part, i).numpy(), held)
