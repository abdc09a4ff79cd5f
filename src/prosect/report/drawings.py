"""Small figures as SVG, from numbers alone: bars of outcomes, and dots with whiskers on a shared axis.

Colours and patterns come from the page's style by class, so that every figure follows its theme. A
drawing beside the same numbers in text is hidden from screen readers; one that stands alone has a title.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from prosect.core.markup import element
from prosect.core.records import Measured
from prosect.report.axis import PAD, WIDTH, Axis, coordinate
from prosect.report.tally import Tally
from prosect.report.words import LETTERS, number

HEIGHT = 18.0
_MIDDLE = coordinate(HEIGHT / 2)


def outcome_bar(tally: Tally, width: float = WIDTH, height: float = 12.0, of: int | None = None) -> Markup:
    """Outcomes side by side: filled, hollow, hatched, dashed, as long as they are many.

    Args:
        tally: the counts.
        width: of the whole bar.
        height: of the bar.
        of: how many the whole bar stands for, if more than the tally holds.
    """
    whole = max(of or tally.registered, 1)
    parts, left = [], 0.5
    for outcome, n in tally.counts:
        if n == 0:
            continue
        size = (width - 1) * n / whole
        parts.append(
            element(
                "rect",
                class_=f"o{LETTERS[outcome]}",
                x=coordinate(left),
                y="0.5",
                width=coordinate(max(size - 1, 0.8)),
                height=coordinate(height - 1),
            )
        )
        left += size
    return _drawing(parts, width, height, "bar", stretch=True)


def share_bar(part: int, whole: int, width: float = 96.0, height: float = 5.0) -> Markup:
    """How much of a whole was looked at: a filled part of an empty line."""
    filled = width * part / whole if whole else 0.0
    parts: list[Markup] = [element("rect", class_="empty", x=0.5, y=0.5, width=width - 1, height=height - 1)]
    if part:
        parts.append(
            element("rect", class_="seen", x=0, y=0, width=coordinate(max(filled, 1.5)), height=height)
        )
    return _drawing(parts, width, height, "seen-bar")


def whisker(
    axis: Axis,
    measured: Measured | None,
    *,
    shape: str = "own",
    explored: float | None = None,
    bar: float | None = None,
    line: float | None = None,
    fall: bool = False,
) -> Markup:
    """One row of a figure.

    Args:
        axis: the scale, shared by all rows.
        measured: dot and interval; an end that is not known runs off the axis.
        shape: ``own`` for the component, ``control`` or ``baseline`` for a rival.
        explored: explore's figure, a hollow diamond.
        bar: what had to be exceeded, an upright stroke.
        line: a faint line through the row, where another row's dot lies.
        fall: join explore's figure and the dot, to show the way from one to the other.
    """
    parts = [_grid(axis)]
    if line is not None:
        parts.append(element("path", class_="ref", d=f"M{axis.at(line)} 0V{coordinate(HEIGHT)}"))
    if bar is not None and axis.holds(bar):
        parts.append(element("path", class_="clear", d=f"M{axis.at(bar)} 2v{coordinate(HEIGHT - 4)}m0-7h5"))
    if fall and explored is not None and measured is not None and measured.estimate is not None:
        way = f"M{axis.at(explored)} {_MIDDLE}H{axis.at(measured.estimate)}"
        parts.append(element("path", class_="fall", d=way))
    if explored is not None:
        x = axis.x(explored)
        parts.append(element("path", class_="explored", d=f"M{coordinate(x - 5)} {_MIDDLE}l5-5 5 5-5 5z"))
    if measured is not None and measured.estimate is not None:
        if measured.low is not None or measured.high is not None:
            low = PAD / 2 if measured.low is None else axis.x(measured.low)
            high = WIDTH - PAD / 2 if measured.high is None else axis.x(measured.high)
            parts.append(
                element("path", class_=f"wh {shape}", d=f"M{coordinate(low)} {_MIDDLE}H{coordinate(high)}")
            )
        parts.append(_dot(axis, measured.estimate, shape))
    return _drawing(parts, WIDTH, HEIGHT, "row")


def axis_row(axis: Axis) -> Markup:
    """The numbers under a figure."""
    shown = axis.ticks if len(axis.ticks) <= 6 else axis.ticks[:: (len(axis.ticks) + 4) // 5]
    labels = [element("text", _tick(t), x=axis.at(t), y="11", text_anchor=_anchor(axis, t)) for t in shown]
    return _drawing([_grid(axis, 3.0), *labels], WIDTH, 14.0, "row axis")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−") if 1e-3 <= abs(value) < 1e4 or value == 0 else number(value)


def _anchor(axis: Axis, tick: float) -> str:
    x = axis.x(tick)
    return "start" if x < PAD + 2 else "end" if x > WIDTH - PAD - 2 else "middle"


def _grid(axis: Axis, height: float = HEIGHT) -> Markup:
    strokes = "".join(f"M{axis.at(t)} 0V{coordinate(height)}" for t in axis.ticks)
    zero = f"M{axis.at(0.0)} 0V{coordinate(height)}" if axis.low < 0 < axis.high else ""
    return element("path", class_="gl", d=strokes) + (element("path", class_="zero", d=zero) if zero else "")


def _dot(axis: Axis, value: float, shape: str) -> Markup:
    x = axis.at(value)
    if shape == "baseline":
        return element(
            "rect", class_="dot baseline", x=coordinate(axis.x(value) - 3.5), y=5.5, width=7, height=7
        )
    return element("circle", class_=f"dot {shape}", cx=x, cy=_MIDDLE, r="4.5" if shape == "own" else "3.8")


def _drawing(
    parts: Sequence[Markup], width: float, height: float, class_: str, *, stretch: bool = False
) -> Markup:
    return element(
        "svg",
        *parts,
        class_=class_,
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        preserveAspectRatio="none" if stretch else None,
        aria_hidden="true",
    )
