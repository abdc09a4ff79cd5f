"""Sums over independent units, gathered batch by batch, for any number of quantities at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


class UnitSums:
    """For each quantity and unit, k running sums.

    Args:
        units: how many units the part has.
        quantities: how many quantities are followed.
        k: sums of each: 2 for a mean, 6 for a correlation.
    """

    def __init__(self, units: int, quantities: int, k: int) -> None:
        self.total = np.zeros((quantities, units, k))

    def add_means(
        self,
        quantity: int,
        unit: Int[np.ndarray, " n"],
        count: Float[np.ndarray, " n"],
        value: Float[np.ndarray, " n"],
    ) -> None:
        """Add to a mean: how much each observation counts, and its total."""
        units = self.total.shape[1]
        self.total[quantity, :, 0] += np.bincount(unit, weights=count, minlength=units)
        self.total[quantity, :, 1] += np.bincount(unit, weights=value, minlength=units)

    def add_moments(
        self,
        unit: Int[np.ndarray, " n"],
        x: Float[np.ndarray, "n quantities"],
        y: Float[np.ndarray, "n quantities"],
    ) -> None:
        """Add to the moments of (x, y) for every quantity; observations must be sorted by unit or not, either way."""
        order = np.argsort(unit, kind="stable")
        present, starts = np.unique(unit[order], return_index=True)
        if not len(present):
            return
        x, y = x[order], y[order]
        counts = np.diff(np.append(starts, len(unit))).astype(float)
        columns = (x, y, x * x, y * y, x * y)
        sums = [np.add.reduceat(c, starts, axis=0) for c in columns]
        self.total[:, present, 0] += counts
        for k, s in enumerate(sums, 1):
            self.total[:, present, k] += s.T
