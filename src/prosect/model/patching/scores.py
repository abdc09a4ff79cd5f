"""One number for each row of every cell, and what follows from them: means, intervals, shares of the gap, cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.errors import ShapeMismatch
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed

BACKWARD = 2.0
"""Forward passes that a backward pass costs: it multiplies by every weight twice where a forward does once."""


@dataclass(frozen=True)
class Cost:
    """What something took, in passes over all rows of the batch.

    Attributes:
        forward: forward passes asked for, each counted whole. A sweep that skips what an edit cannot reach
            spends less.
        backward: backward passes.
    """

    forward: int | float = 0
    backward: int | float = 0

    @property
    def equivalents(self) -> float:
        """In forward passes."""
        return self.forward + BACKWARD * self.backward

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)


@dataclass(frozen=True, eq=False)
class RowScores:
    """Numbers for every row of every cell.

    Intervals are 95 %, by resampling independent units (`prosect.core.intervals`): rows that share a unit
    are drawn together.

    Attributes:
        values: NaN where a row does not have the cell.
        units: the independent unit of each row.
        seed: of the resamples.
    """

    values: Float[np.ndarray, "*cells rows"] = field(repr=False)
    units: Int[np.ndarray, " rows"] = field(repr=False)
    seed: Seed

    def __post_init__(self) -> None:
        if self.values.shape[-1] != len(self.units):
            raise ShapeMismatch(
                f"numbers of {self.values.shape[-1]} rows beside {len(self.units)} units",
                "one unit for each row",
            )

    @property
    def mean(self) -> Float[np.ndarray, "*cells"]:
        """Over the rows that have the cell; NaN where none has."""
        there = np.isfinite(self.values)
        count = there.sum(axis=-1)
        total = np.where(there, self.values, 0.0).sum(axis=-1)
        return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))

    @property
    def rows(self) -> Int[np.ndarray, "*cells"]:
        """How many rows have the cell."""
        return np.asarray(np.isfinite(self.values).sum(axis=-1))

    def measured(self, *cell: int) -> Measured:
        """Mean of a cell over rows, with its interval; n is independent units."""
        x = self.values[cell]
        there = np.isfinite(x)
        return self._ratio(there, np.ones(len(x)), x, Mean())

    def positive(self, *cell: int) -> Measured:
        """Share of the rows in which a cell is above zero. Rows that all agree do not make an interval of no width."""
        x = self.values[cell]
        there = np.isfinite(x)
        return self._ratio(there, np.ones(len(x)), (x > 0).astype(float), Mean(low=0.0, high=1.0))

    def share(self, *cell: int, of: Float[np.ndarray, " rows"]) -> Measured:
        """Mean of a cell divided by the mean of ``of`` over the same rows, both resampled together.

        Where the interval of the divisor includes zero nothing is divided, and the note says so.
        """
        x = self.values[cell]
        there = np.isfinite(x) & np.isfinite(of)
        divisor = RowScores(np.where(there, of, np.nan), self.units, self.seed).measured()
        why = unusable(divisor)
        if why:
            return Measured(estimate=None, n=divisor.n, note=why)
        sign = 1.0 if (divisor.estimate or 0.0) > 0 else -1.0
        return self._ratio(there, sign * of, sign * x, Mean())

    def minus(self, other: RowScores) -> RowScores:
        """The difference, row by row."""
        return RowScores(self.values - other.values, self.units, self.seed)

    def _ratio(
        self,
        used: Bool[np.ndarray, " rows"],
        below: Float[np.ndarray, " rows"],
        above: Float[np.ndarray, " rows"],
        statistic: Mean,
    ) -> Measured:
        names, unit = np.unique(self.units[used], return_inverse=True)
        if len(names) == 0:
            return Measured(estimate=None, n=0, note="no row has this cell")
        sums = np.stack(
            [np.bincount(unit, weights=w[used], minlength=len(names)) for w in (below, above)], axis=-1
        )
        return _resamples(len(names), self.seed).measure([sums], statistic).measured


@lru_cache(maxsize=32)
def _resamples(units: int, seed: Seed) -> Resamples:
    return Resamples(units, INTERVAL_DRAWS, seed.child("resamples", units))


def unusable(divisor: Measured) -> str:
    """Why a number should not be divided by; empty if it may be.

    One unit has no interval; it is divided by unless it is zero, and what results describes that unit alone.
    """
    if divisor.estimate is None or divisor.estimate == 0.0:
        return "not divided: the two runs do not differ in the metric"
    if divisor.low is not None and divisor.high is not None and divisor.low <= 0.0 <= divisor.high:
        return f"not divided: the interval of the metric's gap, {divisor.low:.3g} to {divisor.high:.3g}, includes zero"
    return ""
