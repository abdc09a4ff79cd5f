"""How something changes with a dose, as SVG: one's own line with a band, controls in grey, side effects dashed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from prosect.core.markup import element
from prosect.core.pictures import Curve, Series
from prosect.core.records import Measured
from prosect.report.axis import Axis, axis_for, coordinate
from prosect.report.text import prose
from prosect.report.words import count, estimate, number, short

WIDTH, HEIGHT = 440.0, 264.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 10.0, 42.0
MOST_SERIES = 8
MOST_ROWS = 48
LETTER = 7.2
"""Width of a digit of the axis, about."""
CROWDED = 30
"""Doses closer than this part of their range are drawn at even steps, or they would lie on each other."""
LARGEST = 1e100
CLASSES = {"own": "own", "control": "control", "side effect": "side"}
# strokes around a point, so that series are told apart without colour
SHAPES = (
    "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "m-3.2-3.2h6.4v6.4h-6.4z",
    "m0-4.2l4 7.2h-8z",
    "m0-4.6l4.6 4.6-4.6 4.6-4.6-4.6z",
    "m0 4.2l4-7.2h-8z",
    "m-4 0h8m-4-4v8",
    "m-3.2-3.2l6.4 6.4m0-6.4l-6.4 6.4",
    "m0-4.6v9.2",
)


@dataclass(frozen=True)
class Line:
    """A series in the legend: its swatch, its name, its role and how much its numbers rest on."""

    swatch: Markup
    name: str
    role: str
    n: str


@dataclass(frozen=True)
class DrawnCurve:
    """A curve ready for the page.

    Attributes:
        table: for each dose, the numbers of the series in words.
        method: how the intervals were made.
        even: whether doses stand at even steps.
        left_out: what is not drawn, in a sentence.
    """

    kind: Literal["curve"]
    title: str
    about: str
    drawing: Markup
    lines: tuple[Line, ...]
    along: str
    unit: str
    table: tuple[tuple[str, tuple[str, ...]], ...]
    method: str
    even: bool
    left_out: str


def curve(data: Curve) -> DrawnCurve | str:
    """The curve, or why it cannot be drawn, in words."""
    if not data.doses or not data.series:
        return "it has no doses or no series"
    for s in data.series:
        if len(s.measured) != len(data.doses):
            return f"“{prose(s.name, 60)}” has {count(len(s.measured), 'number')} for {count(len(data.doses), 'dose')}"
    order = sorted(range(len(data.doses)), key=lambda i: data.doses[i])
    doses = [data.doses[i] for i in order]
    rank = {"own": 0, "side effect": 1, "control": 2}
    series = sorted(data.series, key=lambda s: rank[s.role])[:MOST_SERIES]
    measured = [tuple(s.measured[i] for i in order) for s in series]
    ends = [v for row in measured for m in row for v in (m.estimate, m.low, m.high) if v is not None]
    if any(abs(v) > LARGEST for v in (*doses, *ends)):
        return f"it has numbers beyond {number(LARGEST)}"
    if not any(m.estimate is not None for row in measured for m in row):
        return "none of its numbers could be measured"
    across, even = _across(doses)
    unit, along = prose(data.unit, 40), prose(data.along, 60)
    drawing = _drawing(series, measured, doses, across, axis_for(ends, zero=True), along, unit)
    methods = dict.fromkeys(m.method for row in measured for m in row if m.method)
    return DrawnCurve(
        kind="curve",
        title=prose(data.title, 200),
        about=prose(data.about, 800),
        drawing=drawing,
        lines=tuple(
            Line(_swatch(s, i), prose(s.name, 80), "" if s.role == "own" else s.role, _units(row))
            for i, (s, row) in enumerate(zip(series, measured, strict=True))
        ),
        along=along or "dose",
        unit=unit,
        table=tuple(
            (short(dose), tuple(estimate(row[i]) for row in measured))
            for i, dose in enumerate(doses[:MOST_ROWS])
        ),
        method=prose("; ".join(list(methods)[:3]), 200),
        even=even,
        left_out=_left_out(len(data.series) - len(series), len(doses) - MOST_ROWS),
    )


def _units(row: Sequence[Measured]) -> str:
    found = [m.n for m in row if m.estimate is not None]
    if not found or not max(found):
        return ""
    low, high = min(found), max(found)
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def _left_out(series: int, doses: int) -> str:
    said = []
    if series > 0:
        said.append(f"{count(series, 'more series', 'more series')} in findings.json.")
    if doses > 0:
        said.append(f"The numbers of {count(doses, 'further dose')} are drawn, and listed in findings.json.")
    return " ".join(said)


def _across(doses: Sequence[float]) -> tuple[Callable[[float], float], bool]:
    """Where a dose stands from left to right, and whether that is at even steps."""
    steps = sorted(set(doses))
    span = steps[-1] - steps[0]
    width = WIDTH - LEFT - RIGHT - 16
    if span == 0:
        return lambda _: LEFT + 8 + width / 2, False
    if min(b - a for a, b in pairwise(steps)) >= span / CROWDED:
        return lambda dose: LEFT + 8 + width * (dose - steps[0]) / span, False
    at = {dose: i / (len(steps) - 1) for i, dose in enumerate(steps)}
    return lambda dose: LEFT + 8 + width * at[dose], True


def _up(axis: Axis, value: float) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(share, 0.0), 1.0))


def _drawing(
    series: Sequence[Series],
    measured: Sequence[Sequence[Measured]],
    doses: Sequence[float],
    across: Callable[[float], float],
    axis: Axis,
    along: str,
    unit: str,
) -> Markup:
    xs = [across(d) for d in doses]
    parts = [element("title", f"{unit or 'value'} against {along or 'dose'}"), _frame(axis, doses, xs)]
    for i, s in reversed(list(enumerate(series))):  # one's own comes last, on top
        parts.append(_series(s, SHAPES[i], xs, measured[i], axis))
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        element("text", along, class_="name", x=coordinate(middle), y=HEIGHT - 6, text_anchor="middle")
    )
    if unit:
        place = f"translate(12 {coordinate(TOP + (HEIGHT - TOP - BOTTOM) / 2)}) rotate(-90)"
        parts.append(element("text", unit, class_="name", transform=place, text_anchor="middle"))
    return element("svg", *parts, class_="curve", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img")


def _frame(axis: Axis, doses: Sequence[float], xs: Sequence[float]) -> list[Markup]:
    """Lines at the ticks, a stroke under each dose, and their numbers where they do not touch."""
    floor = HEIGHT - BOTTOM
    right = coordinate(WIDTH - RIGHT)
    lines = "".join(f"M{coordinate(LEFT)} {coordinate(_up(axis, t))}H{right}" for t in axis.ticks)
    feet = "".join(f"M{coordinate(x)} {coordinate(floor)}v4" for x in xs)
    out = [element("path", class_="gl", d=lines + feet)]
    if axis.low < 0 < axis.high:
        level = coordinate(_up(axis, 0.0))
        out.append(element("path", class_="zero", d=f"M{coordinate(LEFT)} {level}H{right}"))
    out += [
        element("text", short(t) if abs(t) < 1e4 else number(t), x=LEFT - 7, y=coordinate(_up(axis, t) + 3.7), text_anchor="end")
        for t in axis.ticks
    ]  # fmt: skip
    last = -WIDTH
    for dose, x in zip(doses, xs, strict=True):
        half = LETTER * len(short(dose)) / 2
        if x - half < last + LETTER:
            continue
        last = x + half
        out.append(element("text", short(dose), x=coordinate(x), y=floor + 17, text_anchor="middle"))
    return out


def _series(s: Series, shape: str, xs: Sequence[float], row: Sequence[Measured], axis: Axis) -> list[Markup]:
    class_ = CLASSES[s.role]
    out = []
    band = _band(xs, row, axis) if s.role == "own" else ""
    if band:
        out.append(element("path", class_="band", d=band))
    else:
        out.append(element("path", class_=f"wh {class_}", d=_whiskers(xs, row, axis)))
    way, marks, pen = "", "", "M"
    for x, m in zip(xs, row, strict=True):
        if m.estimate is None:
            pen = "M"  # a gap, not a bridge
            continue
        at = f"{coordinate(x)} {coordinate(_up(axis, m.estimate))}"
        way += pen + at
        marks += f"M{at}{shape}"
        pen = "L"
    out.append(element("path", class_=f"way {class_}", d=way))
    out.append(element("path", class_=f"mark {class_}", d=marks))
    return out


def _band(xs: Sequence[float], row: Sequence[Measured], axis: Axis) -> str:
    """The area between the ends of neighbouring intervals; empty where an end is not known or all stand alone."""
    if len(row) < 2 or any(m.estimate is None or m.low is None or m.high is None for m in row):
        return ""
    there = [f"{coordinate(x)} {coordinate(_up(axis, m.high or 0.0))}" for x, m in zip(xs, row, strict=True)]
    back = [f"{coordinate(x)} {coordinate(_up(axis, m.low or 0.0))}" for x, m in zip(xs, row, strict=True)]
    return f"M{'L'.join([*there, *reversed(back)])}z"


def _whiskers(xs: Sequence[float], row: Sequence[Measured], axis: Axis) -> str:
    """A stroke for each interval; an end that is not known runs to the edge."""
    out = ""
    for x, m in zip(xs, row, strict=True):
        if m.estimate is None or (m.low is None and m.high is None):
            continue
        low = axis.low if m.low is None else m.low
        high = axis.high if m.high is None else m.high
        out += f"M{coordinate(x)} {coordinate(_up(axis, low))}V{coordinate(_up(axis, high))}"
    return out


def _swatch(s: Series, i: int) -> Markup:
    class_ = CLASSES[s.role]
    return element(
        "svg",
        element("path", class_=f"way {class_}", d="M1 7H27"),
        element("path", class_=f"mark {class_}", d=f"M14 7{SHAPES[i]}"),
        class_="swatch",
        viewBox="0 0 28 14",
        aria_hidden="true",
    )
