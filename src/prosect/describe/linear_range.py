"""How far a dose curve is a line: its slope at 0, and the largest strength up to which it follows it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from prosect.core.intervals import INTERVAL_DRAWS
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.averages import Averages, Wanted

METHOD = "percentile bootstrap over units"
ROUNDING = 1e-6
"""A change this small beside the curve's largest value is none."""


def line_of(
    strengths: Float[np.ndarray, " doses"],
    value: Float[np.ndarray, "doses rows"],
    units: Int[np.ndarray, " rows"],
    tolerance: float,
    seed: Seed,
) -> tuple[Measured, Measured]:
    """The slope at 0, and how far the curve follows it.

    Args:
        strengths: ascending, 0 among them, and at least one other.
        value: the metric of every row at each of them.
        units: independent unit of each row.
        tolerance: how far from the line still counts as linear, as a share of what the line says.
        seed: of the resamples.

    Returns:
        The slope from the smallest doses on both sides of 0 (from 0 itself on a side that has none), with its
        interval; and the largest strength up to which every dose is near the line, on every side that was
        asked for, with a percentile interval over the same units. A range is no smooth function of sums, so it
        cannot be studentised.
    """
    zero = int(np.flatnonzero(strengths == 0.0)[0])
    low, high = max(zero - 1, 0), min(zero + 1, len(strengths) - 1)
    each = (value[high] - value[low]) / (strengths[high] - strengths[low])
    sums = Averages()
    sums.add("slope", each, units)
    slope = sums.measure({"slope": Wanted(("slope",))}, seed.child("slope"))["slope"]
    present, inverse = np.unique(units, return_inverse=True)
    count = np.bincount(inverse).astype(float)
    totals = np.stack([np.bincount(inverse, weights=v) for v in value], axis=1)
    estimate = reach(strengths, totals.sum(axis=0) / count.sum(), tolerance)
    if len(present) < 2:
        return slope, Measured(estimate=estimate, n=len(present), note="one unit: no interval")
    share = np.full(len(present), 1 / len(present))
    draws = seed.child("range").numpy().multinomial(len(present), share, size=INTERVAL_DRAWS)
    curves = (draws @ totals) / (draws @ count)[:, None]
    ends = np.quantile([reach(strengths, curve, tolerance) for curve in curves], [0.025, 0.975])
    interval = {"low": float(ends[0]), "high": float(ends[1])}
    return slope, Measured(estimate=estimate, n=len(present), method=METHOD, **interval)


def reach(
    strengths: Float[np.ndarray, " doses"], curve: Float[np.ndarray, " doses"], tolerance: float
) -> float:
    """The largest strength up to which every dose, on either side, is near the line through 0; 0 if none is."""
    zero = int(np.flatnonzero(strengths == 0.0)[0])
    low, high = max(zero - 1, 0), min(zero + 1, len(strengths) - 1)
    line = (curve[high] - curve[low]) / (strengths[high] - strengths[low]) * strengths
    change = curve - curve[zero]
    near = np.abs(change - line) <= tolerance * np.abs(line) + ROUNDING * np.abs(curve).max()
    found = 0.0
    for size in np.unique(np.abs(strengths)):
        if not near[np.abs(strengths) == size].all():
            break
        found = float(size)
    return found
