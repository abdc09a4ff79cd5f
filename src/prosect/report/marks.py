"""The five marks of a claim: filled supported, hollow refuted, half could not be judged, a dash not tested."""

from __future__ import annotations

from functools import cache

from markupsafe import Markup

from prosect.core.markup import element
from prosect.core.verdicts import Outcome
from prosect.report.claims import Claim
from prosect.report.trials import anchor_of
from prosect.report.words import LETTERS, LEVELS, WORDS, levels


@cache
def mark(outcome: Outcome) -> Markup:
    """One mark alone; the words for it stand beside it."""
    return element("i", class_=f"mk {LETTERS[outcome]}")


def said(claim: Claim) -> str:
    """The five levels in words, those not tested together."""
    found = levels(claim.verdict)
    told = [f"level {n} {WORDS[o]}" for n, o in found.items() if o != "not tested"]
    rest = [str(n) for n, o in found.items() if o == "not tested"]
    if rest:
        told.append(f"level{'s' if len(rest) > 1 else ''} {', '.join(rest)} not tested")
    return f"{claim.hypothesis.side}: {'; '.join(told)}"


def row_of_marks(claim: Claim) -> Markup:
    """Five marks as one picture with one description, for a line of the list."""
    shapes = [mark(o) for o in levels(claim.verdict).values()]
    return element("span", *shapes, class_="marks", role="img", aria_label=said(claim))


def linked_marks(claim: Claim) -> Markup:
    """Five marks with the names of their levels, each leading to its test."""
    items = []
    for n, outcome in levels(claim.verdict).items():
        name = LEVELS[n][0].lower()
        text = element("span", f"level {n}, {name}: {WORDS[outcome]}", class_="sr")
        shown = element("span", f"{n} {name}", aria_hidden="true")
        items.append(element("a", mark(outcome), text, shown, href=f"#{anchor_of(claim, n)}"))
    return element("span", *items, class_="ladder")
