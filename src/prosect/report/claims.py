"""The ledger's claims, gathered by component: lineages, what explore had promised, and the order of failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prosect.core.exhibits import slug
from prosect.core.records import Component, Evidence, Hypothesis, Measured, TestPlan
from prosect.core.verdicts import Outcome, Verdict
from prosect.report.places import Place, place_of
from prosect.report.reading import Run


@dataclass(frozen=True)
class Gap:
    """One number before and after: what explore said, what unseen data said, in the same metric."""

    test: str
    metric: str
    explored: float
    measured: Measured

    @property
    def width(self) -> float:
        """How much less was measured than explore had promised."""
        return self.explored - (self.measured.estimate or 0.0)


@dataclass(frozen=True)
class Claim:
    """One hypothesis with everything the ledger says of it.

    Attributes:
        id: the hypothesis's, held here because computing it hashes the whole record.
        line: its line in the ledger, from 1.
        evidence: by test name, re-estimates on the sealed split (``…@sealed``) among them.
        gap: explore against measured, where both are the same number.
        successor: the id of the claim that refines it.
    """

    id: str
    verdict: Verdict
    line: int
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    gap: Gap | None = None
    successor: str | None = None

    @property
    def hypothesis(self) -> Hypothesis:
        return self.verdict.hypothesis

    @property
    def outcome(self) -> Outcome:
        return self.verdict.overall

    @property
    def anchor(self) -> str:
        """The id of its place on the page."""
        return f"h{self.id}"

    @property
    def main(self) -> TestPlan | None:
        """The test that stands for it where there is room for one: the first that belongs to a level."""
        plans = self.hypothesis.tests
        return next((p for p in plans if p.level is not None), plans[0] if plans else None)

    @property
    def clearance(self) -> float | None:
        """How far the least favourable end of its main test's differences lies above the margin."""
        found = self.evidence.get(self.main.name) if self.main else None
        ends = [
            c.difference.low - c.margin
            for c in (found.comparisons if found else ())
            if c.decides and c.difference.low is not None
        ]
        return min(ends) if ends else None


@dataclass(frozen=True)
class Card:
    """A component with all its claims, in order of registration.

    Attributes:
        slug: its address on the page.
        draw: how it came to be looked at, from its first claim; empty if nothing was claimed.
        order: place in order of registration.
    """

    component: Component
    slug: str
    place: Place
    draw: str
    order: int
    claims: tuple[Claim, ...] = ()

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def current(self) -> tuple[Claim, ...]:
        """Claims that nothing refines."""
        return tuple(c for c in self.claims if c.successor is None)

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """Of all its claims, earlier ones too: a failure stays findable."""
        return frozenset(c.outcome for c in self.claims)

    @property
    def gap(self) -> float | None:
        """The widest gap among its refuted claims."""
        gaps = [c.gap.width for c in self.claims if c.gap and c.outcome == "refuted"]
        return max(gaps) if gaps else None


def gather(run: Run, claims: Sequence[Claim]) -> tuple[Card, ...]:
    """Every component that was claimed about or exhibited, failures first."""
    by_component: dict[str, list[Claim]] = {}
    components: dict[str, Component] = {}
    for claim in claims:
        component = claim.hypothesis.component
        components.setdefault(component.name, component)
        by_component.setdefault(component.name, []).append(claim)
    for name, shelved in run.exhibits.items():
        if name not in components:
            components[name] = shelved.read().component
    taken: set[str] = set(RESERVED)
    cards = []
    for order, (name, component) in enumerate(components.items()):
        found = tuple(by_component.get(name, ()))
        draw = found[0].hypothesis.draw if found else ""
        place = place_of(component, run.exhibits.get(name))
        cards.append(Card(component, _address(name, taken), place, draw, order, found))
    return tuple(sorted(cards, key=failures_first))


RESERVED = (
    "answer",
    "failed",
    "map",
    "explored",
    "components",
    "procedure",
    "method",
    "provenance",
    "check",
    "cards",
)
"""Ids that the page itself uses; `_address` gives them to no component."""


def _address(name: str, taken: set[str]) -> str:
    base = slug(name) or "component"
    if re.match(r"^(h[0-9a-f]{16}|scope-|tool-)", base):
        base = f"c-{base}"
    out, n = base, 2
    while out in taken:
        out, n = f"{base}-{n}", n + 1
    taken.add(out)
    return out


def claims_of(run: Run) -> tuple[Claim, ...]:
    """Every hypothesis of the ledger, in order of registration."""
    evidence: dict[str, dict[str, Evidence]] = {}
    lines: dict[int, int] = {}  # by identity of the record: hashing each again would take longest of all
    for entry in run.entries:
        match entry.record:
            case Evidence() as e:
                evidence.setdefault(e.hypothesis, {}).setdefault(e.test, e)
            case Hypothesis() as h:
                lines[id(h)] = entry.n + 1
            case _:
                pass
    successors = {v.hypothesis.parent: hid for hid, v in run.verdicts.items() if v.hypothesis.parent}
    out = []
    for hid, verdict in run.verdicts.items():
        h, found = verdict.hypothesis, evidence.get(hid, {})
        out.append(Claim(hid, verdict, lines[id(h)], found, gap_of(h, found), successors.get(hid)))
    return tuple(out)


def gap_of(hypothesis: Hypothesis, evidence: Mapping[str, Evidence]) -> Gap | None:
    """Explore's figure beside the measured one, for the first test where both are the same number.

    ``explored`` names its figures freely, so a key counts only if it is the test's name or kind, or a
    word of its metric: a number is never set beside another that may mean something else.
    """
    for plan in sorted(hypothesis.tests, key=lambda p: (p.level is None, p.level or 0)):
        found = evidence.get(plan.name)
        key = explored_key(plan, hypothesis.explored)
        if key is None or found is None or found.measured.estimate is None:
            continue
        return Gap(plan.name, plan.metric, float(hypothesis.explored[key]), found.measured)
    return None


def explored_key(plan: TestPlan, explored: Mapping[str, object]) -> str | None:
    """Which of explore's figures is the same number as this test's."""
    words = set(re.findall(r"[a-z]+", plan.metric.lower()))
    for key in sorted(explored, key=lambda k: (k != plan.name, k != plan.kind, k)):
        value = explored[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key in (plan.name, plan.kind, plan.metric) or key.lower() in words:
            return key
    return None


def failures_first(card: Card) -> tuple[int, float, int]:
    """Refuted claims by the widest gap, then undecided, supported, untested and unclaimed components."""
    ranks = {"refuted": 0, "inconclusive": 1, "supported": 2, "not tested": 3}
    rank = min((ranks[o] for o in card.outcomes), default=4)
    return (rank, -(card.gap if card.gap is not None else -1e9), card.order)


def lineages(claims: Iterable[Claim]) -> list[tuple[Claim, ...]]:
    """Chains of refinement, oldest first, each from its root to its newest claim; single claims too.

    A claim refined twice starts a chain for each refinement, so that none is dropped.
    """
    known = {c.id: c for c in claims}
    parents = {c.hypothesis.parent for c in known.values()}
    chains = []
    for claim in known.values():
        if claim.id in parents:
            continue
        chain = [claim]
        while (up := chain[-1].hypothesis.parent) in known and known[up] not in chain:
            chain.append(known[up])
        chains.append(tuple(reversed(chain)))
    return sorted(chains, key=lambda chain: chain[0].line)
