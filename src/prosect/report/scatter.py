"""Measured against predicted, with the control's points behind in grey."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from prosect.core.exhibits import Scatter
from prosect.core.markup import element
from prosect.report.axis import Axis, axis_for, coordinate
from prosect.report.words import number

MOST = 400
SIDE = 240
LEFT, BOTTOM, TOP, RIGHT = 44, 40, 8, 10


def scatter(data: Scatter) -> Markup:
    """The figure. The first `MOST` points of each sample are drawn; they are in random order already."""
    x = axis_for([*data.predicted[:MOST], *data.control_predicted[:MOST]], zero=True)
    y = axis_for([*data.measured[:MOST], *data.control_measured[:MOST]], zero=True)
    own = _points(x, y, data.predicted, data.measured)
    control = _points(x, y, data.control_predicted, data.control_measured)
    n = min(len(data.predicted), len(data.measured), MOST)
    title = f"Measured against predicted {data.unit}, {n} points"
    parts = [
        element("title", title),
        _frame(x, y),
        element("path", class_="pt control", d=control) if control else None,
        element("path", class_="pt own", d=own) if own else None,
        element(
            "text",
            f"predicted {data.unit}",
            class_="name",
            x=LEFT + SIDE / 2,
            y=TOP + SIDE + 32,
            text_anchor="middle",
        ),
        element(
            "text",
            f"measured {data.unit}",
            class_="name",
            transform=f"translate(11 {TOP + SIDE / 2:g}) rotate(-90)",
            text_anchor="middle",
        ),
    ]
    size = f"0 0 {LEFT + SIDE + RIGHT} {TOP + SIDE + BOTTOM}"
    return element("svg", *parts, class_="scatter", viewBox=size, role="img")


def _points(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Strokes of almost no length with round ends: one short path draws hundreds of dots."""
    pairs = zip(xs[:MOST], ys[:MOST], strict=False)
    return "".join(f"M{coordinate(_across(x, a))} {coordinate(_up(y, b))}h.1" for a, b in pairs)


def _across(axis: Axis, value: float) -> float:
    return LEFT + SIDE * (value - axis.low) / (axis.high - axis.low)


def _up(axis: Axis, value: float) -> float:
    return TOP + SIDE * (1 - (value - axis.low) / (axis.high - axis.low))


def _frame(x: Axis, y: Axis) -> list[Markup]:
    edge = TOP + SIDE
    strokes = "".join(f"M{coordinate(_across(x, t))} {edge}v4" for t in x.ticks)
    strokes += "".join(f"M{LEFT} {coordinate(_up(y, t))}h-4" for t in y.ticks)
    labels = [
        element("text", _short(t), x=coordinate(_across(x, t)), y=edge + 16, text_anchor="middle")
        for t in _few(x.ticks)
    ]
    labels += [
        element("text", _short(t), x=LEFT - 7, y=coordinate(_up(y, t) + 3.5), text_anchor="end")
        for t in _few(y.ticks)
    ]
    box = element("path", class_="gl", d=f"M{LEFT} {TOP}V{edge}H{LEFT + SIDE}{strokes}")
    return [box, *labels]


def _few(ticks: Sequence[float]) -> Sequence[float]:
    return ticks if len(ticks) <= 5 else ticks[::2]


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−") if abs(value) < 1e4 else number(value)
