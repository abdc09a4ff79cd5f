"""Counts of verdicts with their denominators; every share carries its exact interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prosect.core.exhibits import Findings
from prosect.core.proportions import share
from prosect.core.records import Measured
from prosect.core.verdicts import Outcome
from prosect.report.claims import Card, Claim, lineages
from prosect.report.words import LEVELS, OUTCOMES, level_four


@dataclass(frozen=True)
class Tally:
    """How many of some claims came out how."""

    supported: int = 0
    refuted: int = 0
    inconclusive: int = 0
    untested: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Tally:
        found = Counter(outcomes)
        return cls(*(found[o] for o in OUTCOMES))

    @property
    def registered(self) -> int:
        """All of them, tested or not: the denominator."""
        return self.supported + self.refuted + self.inconclusive + self.untested

    @property
    def tested(self) -> int:
        return self.registered - self.untested

    @property
    def share(self) -> Measured:
        """Supported among registered, with its Clopper-Pearson interval."""
        return share(self.supported, self.registered)

    @property
    def counts(self) -> tuple[tuple[Outcome, int], ...]:
        numbers = (self.supported, self.refuted, self.inconclusive, self.untested)
        return tuple(zip(OUTCOMES, numbers, strict=True))


@dataclass(frozen=True)
class Row:
    """A line of a table of tallies.

    Attributes:
        name: what is counted.
        about: what that means.
        tally: of the claims; None where nothing of the kind was registered.
        query: the filter that shows them, such as ``level=1``.
    """

    name: str
    about: str
    tally: Tally | None
    query: str = ""


def by_level(claims: Sequence[Claim]) -> list[Row]:
    """One row for each of the five levels; level 4 counts the claims whose method earned it."""
    rows = []
    for level, (name, about) in LEVELS.items():
        if level == 4:
            found = [level_four(c.verdict) for c in claims if c.verdict.method]
        else:
            found = [c.verdict.levels[level] for c in claims if level in c.verdict.levels]
        rows.append(Row(f"{level} {name}", about, Tally.of(found) if found else None, f"level={level}"))
    return rows


SHORT_DRAWS = {
    "random": "at random",
    "chosen": "chosen",
    "all": "all there are",
    "refined": "refined",
    "scripted": "scripted",
}
DRAWS = {
    "random": "drawn at random",
    "chosen": "chosen on explore",
    "all": "all there are",
    "refined": "refined after failing",
    "scripted": "from a script",
}


def by_draw(cards: Sequence[Card], findings: Findings) -> list[Row]:
    """One row for each kind of component and way of drawing it, with the population where the map has it."""
    columns: dict[str, set[str]] = {}
    for card in cards:
        columns.setdefault(card.place.kind, set()).add(card.place.column)
    groups: dict[tuple[str, str], list[Claim]] = {}
    for card in cards:
        for claim in card.claims:
            groups.setdefault((card.place.kind, claim.hypothesis.draw), []).append(claim)
    order = list(DRAWS)
    rows = []
    for kind, draw in sorted(groups, key=lambda g: (order.index(g[1]), g[0])):
        found = groups[kind, draw]
        components = len({c.hypothesis.component.name for c in found})
        name = f"{kind}s, {DRAWS[draw]}" if not kind.endswith("s") else f"{kind}, {DRAWS[draw]}"
        there = sum(cell.components for cell in findings.map if cell.place in columns[kind])
        about = f"{components:,} of {there:,}" if there >= components else f"{components:,}"
        tally = Tally.of(c.outcome for c in found)
        rows.append(Row(name, about, tally, f"kind={kind}&draw={draw}"))
    return rows


def drawn_as(claims: Sequence[Claim], *draws: str) -> Tally:
    """Of the claims about components that were drawn in one of these ways."""
    return Tally.of(c.outcome for c in claims if c.hypothesis.draw in draws)


@dataclass(frozen=True)
class Refinements:
    """What became of refuted and undecided claims that were tried again.

    Attributes:
        chains: lineages of two claims or more, oldest claim first.
        fate: verdicts of their newest claims.
        dropped: refuted claims that nothing refines.
    """

    chains: tuple[tuple[Claim, ...], ...]
    fate: Tally
    dropped: int


def refinements(claims: Sequence[Claim]) -> Refinements:
    """Lineages and their fate."""
    chains = tuple(chain for chain in lineages(claims) if len(chain) > 1)
    return Refinements(
        chains,
        Tally.of(chain[-1].outcome for chain in chains),
        sum(1 for c in claims if c.outcome == "refuted" and c.successor is None),
    )


def reasons(claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """Why claims could not be judged, most frequent first; one reason for each claim."""
    found: Counter[str] = Counter()
    for claim in claims:
        if claim.outcome != "inconclusive":
            continue
        undecided = [t for t in claim.verdict.tests.values() if t.outcome == "inconclusive" and t.why]
        why = undecided[0].why if undecided else "no reason was recorded"
        evidence = [e for e in claim.evidence.values() if not e.enough]
        found["too few independent units, or active in too few" if evidence else why] += 1
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class TruthTable:
    """Verdicts against what is known of an organism; None where it says nothing."""

    rows: tuple[tuple[Outcome, int, int, int], ...]

    @property
    def supported(self) -> tuple[int, int, int]:
        """Supported claims that are true, that are false, and of which the truth does not speak."""
        return next((r[1:] for r in self.rows if r[0] == "supported"), (0, 0, 0))


def against_truth(claims: Sequence[Claim]) -> TruthTable | None:
    """Verdicts × truth, or None where nothing is known."""
    checked = [(c.outcome, c.verdict.truth.holds) for c in claims if c.verdict.truth is not None]
    if not checked:
        return None
    found = Counter(checked)
    return TruthTable(
        tuple(
            (o, found[o, True], found[o, False], found[o, None])
            for o in OUTCOMES
            if any(k[0] == o for k in found)
        )
    )
