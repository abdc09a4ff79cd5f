"""How the claims were judged: what was frozen when, what was opened when, and how the method itself scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prosect.core.canonical import Json
from prosect.core.exhibits import FigureTable
from prosect.core.records import Calibration, Evidence, Family, Hypothesis, Note, Opening, Scope
from prosect.core.verdicts import LEVEL_FOUR_FLOOR
from prosect.report.axis import Axis, axis_for
from prosect.report.claims import Claim
from prosect.report.drawings import axis_row, whisker
from prosect.report.reading import Run
from prosect.report.text import prose
from prosect.report.words import estimate, number

MOST_ROWS = 60


@dataclass
class Round:
    """One turn of the loop, by line of the ledger, from 1.

    Attributes:
        claims: hypotheses registered.
        registered: first and last of their lines.
        tests: m of Holm's correction.
        alpha: share of the error budget.
        closed: line at which the family was closed; None if it was not.
        opened: folds with the line at which each was opened.
        evidence: outcomes recorded.
    """

    number: int
    claims: int = 0
    registered: tuple[int, int] = (0, 0)
    tests: int = 0
    alpha: float = 0.0
    closed: int | None = None
    opened: tuple[tuple[str, int], ...] = ()
    evidence: int = 0


def rounds(run: Run, claims: Sequence[Claim]) -> list[Round]:
    """The rounds in order, read off the ledger."""
    out: dict[int, Round] = {}
    of = {claim.id: claim.hypothesis.round for claim in claims}
    for entry in run.entries:
        line = entry.n + 1
        match entry.record:
            case Hypothesis() as h:
                r = out.setdefault(h.round, Round(h.round))
                r.claims += 1
                r.registered = (r.registered[0] or line, line)
            case Family() as f:
                r = out.setdefault(f.round, Round(f.round))
                r.tests, r.alpha, r.closed = f.tests, f.alpha, line
            case Opening() as o:
                r = out.setdefault(o.round, Round(o.round))
                r.opened = (*r.opened, (prose(o.fold, 60), line))
            case Evidence() as e if e.hypothesis in of:
                out[of[e.hypothesis]].evidence += 1
            case _:
                pass
    return [out[k] for k in sorted(out)]


@dataclass(frozen=True)
class FigureRow:
    """A named number with its drawing."""

    name: str
    about: str
    drawing: Markup
    value: str
    unit: str


@dataclass(frozen=True)
class Drawn:
    """A table of figures on one axis."""

    title: str
    about: str
    rows: tuple[FigureRow, ...]
    axis: Markup
    left_out: int


def drawn(table: FigureTable) -> Drawn:
    """Figures side by side, drawn on one axis if they share a unit; numbers of two units share no axis."""
    rows = table.rows[:MOST_ROWS]
    axis = axis_for(
        [v for r in rows for v in (r.measured.estimate, r.measured.low, r.measured.high) if v is not None],
        zero=True,
    )
    same = len({r.unit for r in rows}) <= 1
    made = tuple(
        FigureRow(
            prose(r.name, 160),
            prose(r.about, 300),
            whisker(axis, r.measured) if same else Markup(""),
            estimate(r.measured),
            prose(r.unit, 40),
        )
        for r in rows
    )
    left = len(table.rows) - len(rows)
    return Drawn(
        prose(table.title, 200), prose(table.about, 800), made, axis_row(axis) if same else Markup(""), left
    )


@dataclass(frozen=True)
class Score:
    """A method and what it scored on one kind of organism; ``calibration`` is None where it was never measured."""

    method: str
    side: str
    calibration: Calibration | None
    drawing: Markup | None = None
    verdict: str = "never measured"


def scores(run: Run, claims: Sequence[Claim]) -> tuple[list[Score], Markup]:
    """Every calibration in the ledger, and every method used here that has none."""
    axis = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    found = [e.record for e in run.entries if isinstance(e.record, Calibration)]
    used = dict.fromkeys((c.hypothesis.explainer, c.hypothesis.side) for c in claims)
    out = [
        Score(prose(c.method, 80), c.side, c, whisker(axis, c.precision, bar=LEVEL_FOUR_FLOOR), _earned(c))
        for c in found[:MOST_ROWS]
    ]
    measured = {(c.method, c.side) for c in found}
    never = [pair for pair in used if pair not in measured]
    out += [Score(prose(method, 80), side, None) for method, side in never[:MOST_ROWS]]
    return out, axis_row(axis)


def _earned(c: Calibration) -> str:
    low, high = c.precision.low, c.precision.high
    if low is not None and low >= LEVEL_FOUR_FLOOR:
        return "reaches 0.8 with its whole interval"
    if high is not None and high < LEVEL_FOUR_FLOOR:
        return "lies wholly below 0.8"
    return "does not reach 0.8 with its whole interval"


def scopes(claims: Sequence[Claim]) -> dict[Scope, int]:
    """The distinct scopes of the claims, numbered from 1 in order of registration."""
    return {s: i for i, s in enumerate(dict.fromkeys(c.hypothesis.scope for c in claims), 1)}


def costs(run: Run) -> list[tuple[str, str]]:
    """Counts spent by the run, and by its tests alone."""
    spent: Counter[str] = Counter()
    for entry in run.entries:
        if isinstance(entry.record, Evidence):
            spent.update(entry.record.cost)
    out = [(prose(k, 60), f"{v:,}") for k, v in sorted(run.findings.cost.items())]
    return (out + [(f"{prose(k, 60)} in tests", f"{v:,}") for k, v in sorted(spent.items())])[:MOST_ROWS]


def notes(run: Run) -> list[tuple[str, str]]:
    """What the ledger says beside its claims."""
    found = [e.record for e in run.entries if isinstance(e.record, Note)]
    return [(prose(n.about, 80), prose(n.text, 600)) for n in found]


def flat(value: Json, at: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """JSON as dotted keys with short values, in order of key; deep things stay as they are."""
    if isinstance(value, dict) and value and depth < 6:
        return [
            pair
            for key in sorted(value)
            for pair in flat(value[key], f"{at}.{key}" if at else str(key), depth + 1)
        ]
    if isinstance(value, list) and len(value) <= 12 and all(not isinstance(v, dict | list) for v in value):
        said = ", ".join(_atom(v) for v in value)
    elif isinstance(value, dict | list):
        said = f"{len(value):,} entries" if value else "empty"
    else:
        said = _atom(value)
    return [(prose(at, 120), prose(said, 300))]


def _atom(value: Json) -> str:
    if value is None:
        return "none"
    return number(value) if isinstance(value, bool | int | float) else str(value)
