"""A token rule as one sentence: `fires on \\`self\\` after \\`(\\``.

Each leaf above the rule's base is a case; cases that differ only in the current token are told as one, the
strongest token first. Sets are cut to what can be read, and what was cut is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prosect.describe.rules import Leaf, Predicate, Tree
from prosect.describe.vocabulary import CLASSES, Vocabulary
from prosect.describe.wording import LONGEST_SENTENCE, listing

NOTHING = "no rule found: its mean activation everywhere"
SHOWN = (12, 8, 6, 4, 3, 2, 1)
"""How many tokens of a set to show: the first of these with which the sentence is short enough."""

INSIDE = {"quotes": "quotes", "comment": "a comment", "brackets": "brackets"}
BACK = {1: "", 2: "two places ", 3: "three places "}

Place = tuple[str, int]
HERE: Place = ("token", 0)


@dataclass
class Case:
    """What holds on the way to a leaf.

    Attributes:
        value: activation predicted there.
        named: place → tokens one of which stands there, strongest first.
        excluded: place → tokens none of which stands there; only where none is named.
        flags: (what, name, back) → whether it holds.
        low: smallest position in the window.
        high: position that is not reached; None where there is no bound.
    """

    value: float
    named: dict[Place, list[int]] = field(default_factory=dict)
    excluded: dict[Place, list[int]] = field(default_factory=dict)
    flags: dict[tuple[str, str, int], bool] = field(default_factory=dict)
    low: int = 0
    high: int | None = None

    @property
    def context(self) -> tuple[object, ...]:
        """Everything but the current token's named set: cases that share it are told together."""
        others = {k: tuple(v) for k, v in self.named.items() if k != HERE}
        excluded = {k: tuple(v) for k, v in self.excluded.items() if k != HERE}
        return (
            HERE in self.named,
            tuple(sorted(others.items())),
            tuple(sorted(excluded.items())),
            tuple(sorted(self.flags.items())),
            self.low,
            self.high,
        )


def cases(tree: Tree) -> list[Case]:
    """Every leaf with what holds on the way to it, the highest value first."""
    out: list[Case] = []

    def walk(node: Tree, answers: list[tuple[Predicate, bool]]) -> None:
        if isinstance(node, Leaf):
            out.append(_case(node.value, answers))
            return
        walk(node.then, [*answers, (node.predicate, True)])
        walk(node.otherwise, [*answers, (node.predicate, False)])

    walk(tree, [])
    return sorted(out, key=lambda c: -c.value)


def _case(value: float, answers: list[tuple[Predicate, bool]]) -> Case:
    case = Case(value)
    for predicate, holds in answers:
        place = (predicate.what, predicate.back)
        if predicate.tokens and holds:
            inside = set(predicate.tokens)
            old = case.named.get(place)
            case.named[place] = sorted(inside & set(old)) if old is not None else sorted(inside)
        elif predicate.tokens:
            case.excluded.setdefault(place, []).extend(predicate.tokens)
        elif predicate.what == "position" and holds:
            case.high = min(predicate.below, case.high or predicate.below)
        elif predicate.what == "position":
            case.low = max(predicate.below, case.low)
        else:
            case.flags[predicate.what, predicate.name, predicate.back] = holds
    for place, tokens in case.named.items():
        gone = set(case.excluded.pop(place, ()))
        case.named[place] = [t for t in tokens if t not in gone]
    return case


Strength = Callable[[Place, int], float]
"""How much activation goes with a token at a place: what is told first."""


def sentence(tree: Tree, base: float, vocabulary: Vocabulary, strength: Strength | None = None) -> str:
    """The rule in words, about 120 characters at most.

    Args:
        tree: the rule.
        base: what is predicted without a rule; leaves above it are where the component "fires". Where those
            only say what is not there, the rule is told the other way round: where it fires less.
        vocabulary: strings of the tokens.
        strength: orders the tokens of one set; without it they come in the order of their strings.
    """
    if isinstance(tree, Leaf):
        return NOTHING
    found = [_by_class(c, vocabulary) for c in cases(tree)]
    found = [c for c in found if not (HERE in c.named and not c.named[HERE])]
    told, verb = [c for c in found if c.value > base and not _unspecific(c)], "fires"
    if not told:
        told, verb = [c for c in reversed(found) if c.value <= base and not _unspecific(c)], "fires less"
    groups: dict[tuple[object, ...], Case] = {}
    for case in told:
        for place, tokens in case.named.items():
            tokens.sort(
                key=lambda t, place=place: (  # type: ignore[misc]
                    -strength(place, t) if strength else 0.0,
                    vocabulary.strings[t],
                )
            )
        if case.context in groups and HERE in case.named:
            groups[case.context].named[HERE] += case.named[HERE]
        else:
            groups[case.context] = case
    wanted, text = list(groups.values()), ""
    link = "; less " if verb == "fires" else "; "
    for kept in range(len(wanted), 0, -1):
        for shown in SHOWN:
            rest = f"; and {len(wanted) - kept} more" if kept < len(wanted) else ""
            text = f"{verb} {link.join(_phrase(c, shown, vocabulary) for c in wanted[:kept])}{rest}"
            if len(text) <= LONGEST_SENTENCE:
                return text
    return text[: LONGEST_SENTENCE - 1] + "…"


def _by_class(case: Case, vocabulary: Vocabulary) -> Case:
    """The same case with what it says of the current token's classes taken into its set of tokens, if it names one."""
    if HERE not in case.named:
        return case
    order = list(CLASSES)
    asked = {key: holds for key, holds in case.flags.items() if key[0] == "class" and key[2] == 0}
    tokens = [
        t
        for t in case.named[HERE]
        if all(vocabulary.classes[t, order.index(name)] == holds for (_, name, _), holds in asked.items())
    ]
    flags = {key: holds for key, holds in case.flags.items() if key not in asked}
    return replace(case, named={**case.named, HERE: tokens}, flags=flags)


def _unspecific(case: Case) -> bool:
    """Whether a case only says what is not there."""
    return not case.named and not any(case.flags.values()) and case.high is None


def _phrase(case: Case, shown: int, vocabulary: Vocabulary) -> str:
    def names(tokens: list[int]) -> str:
        return listing([vocabulary.strings[t] for t in tokens], shown)

    def standing(place: Place, words: str, alone: str) -> list[str]:
        if place in case.named:
            return [f"{words} {names(case.named[place])}"]
        return [f"{alone} {names(case.excluded[place])}"] if place in case.excluded else []

    parts = [] if HERE in case.named else [_current(case)]
    parts += standing(HERE, "on", "except")
    for back, far in BACK.items():
        parts += standing(("token", back), f"{far}after", f"not {far}after")
    for (kind, name, back), holds in case.flags.items():
        if kind == "class" and back:
            parts.append(f"{'' if holds else 'not '}{BACK[back]}after {CLASSES[name]}")
        elif kind == "inside":
            parts.append(f"{'inside' if holds else 'outside'} {INSIDE[name]}")
        elif kind == "repeated":
            parts.append("seen before in the window" if holds else "new in the window")
    for what, words in (("line", "in a line"), ("previous line", "below a line")):
        parts += standing((what, 0), f"{words} that starts with", f"not {words} that starts with")
    return " ".join([*parts, *_where(case)])


def _current(case: Case) -> str:
    """The current token where no set of tokens is named."""
    here = {name: holds for (kind, name, back), holds in case.flags.items() if kind == "class" and not back}
    yes = [CLASSES[name] for name, holds in here.items() if holds]
    no = [CLASSES[name] for name, holds in here.items() if not holds]
    words = f"on {' and '.join(yes) if yes else 'any token'}"
    return f"{words} other than {' or '.join(no)}" if no else words


def _where(case: Case) -> list[str]:
    """The position in the window."""
    if case.high is None:
        return [f"from position {case.low} on"] if case.low else []
    if not case.low:
        return ["at the start" if case.high == 1 else f"before position {case.high}"]
    return [f"between positions {case.low} and {case.high - 1}"]
