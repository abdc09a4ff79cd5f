"""Which components fit into a page of bounded size, by a rule that the page states.

Every component gets a line of the list while there is room: those with a refuted claim first, then a
random sample of the others. What room is left goes to opened cards: at most half of it to failures, in the
order of the list, the rest to a random sample. The sample's seed is the ledger's head, so that nobody
chooses it. What does not fit is counted and stays in the run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prosect.core.seeds import Seed
from prosect.report.claims import Card

MOST_BYTES = 10_000_000
MOST_CARD = 400_000
"""An opened card larger than this stays one line, or it would keep many others closed."""
SLACK = 65_536
"""Kept free for numbers that are filled in when it is known what fits."""


@dataclass(frozen=True)
class Fit:
    """What fits.

    Attributes:
        html: of each card shown, in the order of the list.
        lines: cards shown in one line.
        opened: cards shown whole.
        absent: cards not shown.
        claims_absent: claims about them.
        failures_absent: cards with a refuted claim among them.
    """

    html: tuple[str, ...]
    lines: int
    opened: int
    absent: int
    claims_absent: int
    failures_absent: int


def fit(
    cards: Sequence[Card], head: str, room: int, line: Callable[[Card], str], whole: Callable[[Card], str]
) -> Fit:
    """Choose what to show.

    Args:
        cards: failures first, as `claims.gather` orders them.
        head: the ledger's head hash, the seed of the sample.
        room: bytes.
        line: a card as one line.
        whole: a card opened; called only while there is room.
    """
    failures = [c for c in cards if "refuted" in c.outcomes]
    others = _shuffled([c for c in cards if "refuted" not in c.outcomes], head, "lines")
    html: dict[str, str] = {}
    left = room
    for card in (*failures, *others):
        made = line(card)
        if left < _size(made):
            break
        html[card.slug] = made
        left -= _size(made)

    opened: set[str] = set()
    shown = [c for c in cards if c.slug in html]
    half = left // 2
    left -= half - _open([c for c in failures if c.slug in html], half, html, opened, whole)
    _open(_shuffled([c for c in shown if c.slug not in opened], head, "opened"), left, html, opened, whole)
    absent = [c for c in cards if c.slug not in html]
    return Fit(
        html=tuple(html[c.slug] for c in shown),
        lines=len(shown),
        opened=len(opened),
        absent=len(absent),
        claims_absent=sum(len(c.claims) for c in absent),
        failures_absent=sum("refuted" in c.outcomes for c in absent),
    )


def _open(
    cards: Sequence[Card], room: int, html: dict[str, str], opened: set[str], whole: Callable[[Card], str]
) -> int:
    """Open cards in order until one does not fit; returns the room left."""
    for card in cards:
        made = whole(card)
        more = _size(made) - _size(html[card.slug])
        if more > MOST_CARD:
            continue
        if more > room:
            break
        html[card.slug] = made
        opened.add(card.slug)
        room -= more
    return room


def _shuffled(cards: Sequence[Card], head: str, why: str) -> list[Card]:
    order = Seed(int(head[:15], 16)).child("report", why).numpy().permutation(len(cards))
    return [cards[i] for i in order]


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
