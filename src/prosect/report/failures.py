"""What failed, first: refuted claims by the width of the gap between what explore promised and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prosect.report.axis import axis_for
from prosect.report.claims import Claim
from prosect.report.drawings import axis_row, whisker
from prosect.report.text import prose
from prosect.report.words import estimate, number

MOST = 12
MOST_METRICS = 3


@dataclass(frozen=True)
class Fall:
    """One refuted claim: promised and measured."""

    claim: Claim
    words: str
    drawing: Markup
    explored: str
    measured: str
    gap: str


@dataclass(frozen=True)
class Falls:
    """Refuted claims judged by the same metric, widest gap first; the rest are counted."""

    metric: str
    rows: tuple[Fall, ...]
    axis: Markup
    of: int


def falls(claims: Sequence[Claim]) -> tuple[Falls, ...]:
    """A figure for each metric, the one with most refuted claims first; numbers of two metrics never share one."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.outcome == "refuted" and claim.gap is not None:
            groups.setdefault(claim.gap.metric, []).append(claim)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(_figure(metric, found) for metric, found in ordered[:MOST_METRICS])


def widest(claims: Sequence[Claim], most: int) -> list[Claim]:
    """Refuted claims by the width of their gap."""
    found = [c for c in claims if c.outcome == "refuted" and c.gap is not None]
    return sorted(found, key=lambda c: (-(c.gap.width if c.gap else 0.0), c.line))[:most]


def strongest(claims: Sequence[Claim], most: int) -> list[Claim]:
    """Supported claims by how far the unfavourable end of their differences clears the margin."""
    found = [c for c in claims if c.outcome == "supported"]
    return sorted(found, key=lambda c: (-(c.clearance if c.clearance is not None else -1e9), c.line))[:most]


def _figure(metric: str, claims: Sequence[Claim]) -> Falls:
    shown = widest(claims, MOST)
    gaps = [(c, c.gap) for c in shown if c.gap is not None]
    values = [g.explored for _, g in gaps]
    values += [
        v for _, g in gaps for v in (g.measured.estimate, g.measured.low, g.measured.high) if v is not None
    ]
    axis = axis_for(values, zero=True)
    rows = tuple(
        Fall(
            claim=c,
            words=prose(c.hypothesis.description.words, 160),
            drawing=whisker(axis, g.measured, explored=g.explored, fall=True),
            explored=number(g.explored),
            measured=estimate(g.measured),
            gap=number(-g.width),
        )
        for c, g in gaps
    )
    return Falls(prose(metric, 200), rows, axis_row(axis), len(claims))
