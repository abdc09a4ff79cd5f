"""A horizontal scale with readable ticks, shared by the rows of one figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 320.0
PAD = 8.0


def coordinate(value: float) -> str:
    """A coordinate as short as it can be: one decimal, none where it is whole."""
    out = f"{value:.1f}"
    return out[:-2] if out.endswith(".0") else out


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high`` over `WIDTH` units of drawing, with ticks at round numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        """Where ``value`` lies, kept inside the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return PAD + min(max(share, 0.0), 1.0) * (WIDTH - 2 * PAD)

    def at(self, value: float) -> str:
        """The same as text."""
        return coordinate(self.x(value))

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies on the axis, to the last digit that a tick has."""
        slack = 1e-6 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack


def axis_for(values: Iterable[float], *, zero: bool = False) -> Axis:
    """An axis that holds all ``values`` (and 0, if asked) and ends at ticks."""
    found = [v for v in values if math.isfinite(v)]
    if zero or not found:
        found.append(0.0)
    low, high = min(found), max(found)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough - 1e-12 * power)
