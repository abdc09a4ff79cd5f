"""A scorecard as a page and as a table in a terminal: every line between the two controls that give it meaning.

Numbers of different lines have different units, so the drawing puts each where it lies between its own controls: 0 where
the limitation is absent by construction, 1 where it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from prosect.core.exhibits import Figure
from prosect.core.markup import element
from prosect.core.records import Measured
from prosect.decompose.audit.lines import EXACT, Line, Scorecard, Word
from prosect.report.axis import Axis, axis_for, coordinate
from prosect.report.drawings import HEIGHT, axis_row
from prosect.report.page import asset, policy, templates
from prosect.report.procedure import flat
from prosect.report.text import prose
from prosect.report.words import count, estimate, number

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS: dict[Word, str] = {"inside": "s", "outside": "r", "undecided": "i", "cannot tell": "n", "not run": "n"}
SIGNS: dict[Word, str] = {"inside": "●", "outside": "○", "undecided": "◐", "cannot tell": "–", "not run": "–"}
MEANINGS: dict[Word, str] = {
    "inside": "the whole interval lies in the control interval",
    "outside": "the whole interval lies above it",
    "undecided": "the interval lies on both sides, or there is none",
    "cannot tell": "the two controls give the same here, so the number says nothing",
    "not run": "there is no number, and it is said why",
}
EDGE = 0.5
"""How far beyond its controls the drawing reaches."""


def value(measured: Measured) -> str:
    """A number with its interval; a count without one."""
    if measured.method == EXACT and measured.estimate is not None:
        whole = float(measured.estimate).is_integer()
        return number(int(measured.estimate) if whole else measured.estimate)
    return estimate(measured)


def drawn(line: Line, axis: Axis) -> Markup:
    """One row: the control interval as a band, the null as a diamond, the number as a dot with its interval.

    A number beyond the axis lies at its end, with an arrow.
    """
    absent, present = line.absent.estimate, line.present.estimate
    if line.word == "not run" or absent is None or present is None or present <= absent:
        return Markup("")

    def at(x: float | None, other: float) -> float:
        return axis.x(other if x is None else (x - absent) / (present - absent))

    middle, left = HEIGHT / 2, axis.x(axis.low)
    parts = [
        element(
            "rect",
            class_="within",
            x=coordinate(left),
            y=2,
            width=coordinate(axis.x(line.share) - left),
            height=HEIGHT - 4,
        ),
        element("path", class_="gl", d="".join(f"M{axis.at(t)} 0V{coordinate(HEIGHT)}" for t in axis.ticks)),
        *(element("path", class_="zero", d=f"M{axis.at(end)} 0V{coordinate(HEIGHT)}") for end in (0.0, 1.0)),
    ]
    if line.null.estimate is not None:
        x = at(line.null.estimate, 0.0)
        parts.append(element("path", class_="explored", d=f"M{coordinate(x - 4)} {middle}l4-4 4 4-4 4z"))
    m = line.measured
    if m.low is not None or m.high is not None:
        ends = (at(m.low, axis.low), at(m.high, axis.high))
        parts.append(
            element("path", class_="wh own", d=f"M{coordinate(ends[0])} {middle}H{coordinate(ends[1])}")
        )
    parts.append(element("circle", class_="dot own", cx=coordinate(at(m.estimate, 0.0)), cy=middle, r="4.5"))
    position = line.position
    if position is not None and position > axis.high:
        tip = axis.x(axis.high) + 7
        parts.append(element("path", class_="clear", d=f"M{coordinate(tip)} {middle - 4}l4 4-4 4"))
    return element(
        "svg",
        *parts,
        class_="row",
        viewBox=f"0 0 {coordinate(axis.x(axis.high) + left)} {coordinate(HEIGHT)}",
        aria_hidden="true",
    )


def page(card: Scorecard) -> str:
    """One HTML file with nothing to fetch; the same scorecard gives the same bytes."""
    style, script = asset("style.css") + asset("scorecard.css"), asset("scorecard.js")
    axis = axis_over(card)
    counts = [
        (word, MARKS[word], MEANINGS[word], sum(line.word == word for line in card.lines)) for word in MARKS
    ]
    return (
        templates()
        .get_template("scorecard.html.j2")
        .render(
            title=prose(card.dictionary, 200),
            policy=policy(style, script),
            style=Markup(style),
            script=Markup(script),
            facts=_facts(card),
            counts=[c for c in counts if c[3]],
            lines=[_shown(line, axis) for line in card.lines],
            axis=axis_row(axis),
            notes=[prose(n, 600) for n in card.notes],
            provenance=flat(dict(card.provenance))[:80],
        )
    )


def axis_over(card: Scorecard) -> Axis:
    """An axis on which every line has its place, at most `EDGE` beyond the controls."""
    found = [0.0, 1.0]
    for line in card.lines:
        absent, present = line.absent.estimate, line.present.estimate
        if absent is None or present is None or present <= absent:
            continue
        for x in (line.measured.estimate, line.measured.low, line.measured.high, line.null.estimate):
            if x is not None:
                found.append(min(max((x - absent) / (present - absent), -EDGE), 1.0 + EDGE))
    return axis_for(found)


def _facts(card: Scorecard) -> list[tuple[str, str]]:
    """In the order in which they were written; what is a table has a line for each entry."""
    out = []
    for name, said in card.facts.items():
        parts = said.items() if isinstance(said, dict) else [("", said)]
        for part, entry in parts:
            shown = number(entry) if isinstance(entry, int | float) else str(entry)
            out.append(
                (prose(f"{name} at {part}" if part and len(parts) > 1 else name, 80), prose(shown, 300))
            )
    return out


@dataclass(frozen=True)
class Shown:
    """A line ready for the page."""

    id: str
    name: str
    number: str
    word: Word
    mark: str
    drawing: Markup
    value: str
    four: tuple[tuple[str, str, str], ...]
    limit: str
    why_limit: str
    figures: tuple[tuple[str, str, str, str], ...]
    remarks: tuple[str, ...]
    why: str
    unit: str


def _shown(line: Line, axis: Axis) -> Shown:
    about = line.about
    own = f"{_units(line)}{'; ' if _units(line) and line.measured.method else ''}{line.measured.method}"
    four = (
        ("measured", value(line.measured), own),
        *(
            (name, value(getattr(line, name)), line.controls.get(name, ""))
            for name in ("absent", "present", "null")
        ),
    )
    return Shown(
        line.id,
        prose(about.name, 120),
        prose(about.number[0].upper() + about.number[1:], 200),
        line.word,
        MARKS[line.word],
        drawn(line, axis),
        "" if line.why else value(line.measured),
        () if line.why else tuple((n, prose(v, 160), prose(w, 300)) for n, v, w in four),
        "" if line.limit is None else number(line.limit),
        prose(about.why, 200),
        tuple(_figure(f) for f in line.figures),
        tuple(prose(r, 600) for r in line.remarks),
        prose(line.why, 600),
        prose(line.unit, 80),
    )


def _units(line: Line) -> str:
    n = line.measured.n
    return count(n, line.unit) if n else ""


def _figure(figure: Figure) -> tuple[str, str, str, str]:
    if figure.measured.estimate is None:
        return prose(figure.name, 160), "–", "", prose(figure.measured.note, 300)
    return (
        prose(figure.name, 160),
        prose(value(figure.measured), 120),
        prose(figure.unit, 40),
        prose(figure.about, 300),
    )


def table(card: Scorecard) -> RenderableType:
    """The scorecard in a terminal, 80 columns wide. Text from files is shown, never interpreted."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    columns: dict[str, dict[str, Any]] = {
        "": {"no_wrap": True},
        "limitation": {"min_width": 16},
        "number": {"min_width": 14},
        "absent": {},
        "present": {},
        "null": {},
        "up to": {},
        "word": {"min_width": 11},
    }
    for name, options in columns.items():
        found.add_column(name, overflow="fold", **options)
    reasons = []
    for line in card.lines:
        said = f"{SIGNS[line.word]} {line.word}"
        if line.word == "not run":
            found.add_row(line.id, Text(line.about.name), "–", "", "", "", "", said)
            reasons.append(Text(f"{line.id} was not run: {prose(line.why, 400)}", style="dim"))
            continue
        four = [_short(getattr(line, n)) for n in ("absent", "present", "null")]
        limit = "–" if line.limit is None else number(line.limit)
        found.add_row(
            line.id, Text(line.about.name), Text(value(line.measured)), *map(Text, four), limit, said
        )
    facts = ", ".join(str(card.facts[k]) for k in ("model", "text") if k in card.facts)
    notes = [Text(prose(n, 400), style="dim") for n in card.notes]
    return Group(
        Text(prose(card.dictionary, 200), style="bold"),
        Text(prose(facts, 300)),
        Text(""),
        found,
        Text(""),
        *reasons,
        *notes,
    )


def _short(measured: Measured) -> str:
    return "–" if measured.estimate is None else number(measured.estimate)
