"""How far a gradient's estimate is from what replacing features does change, and where it is blind.

A gradient is a first-order approximation. Where a unit is saturated it is zero while replacing the feature
changes everything; the error is measured on a sample rather than assumed to be small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prosect.core.errors import TooLittleData
from prosect.core.intervals import INTERVAL_DRAWS, Correlation, Resamples, moments
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.ranks import over_rows
from prosect.describe.attribution.reference import Reference
from prosect.describe.attribution.replacing import one_by_one

BLIND = 0.1
"""An estimate below this share of the exact effect does not see it."""
LARGE = 0.25
"""An exact effect counts as large from this share of the largest in the sample on."""


@dataclass(frozen=True)
class FirstOrder:
    """Estimates against exact replacement, on pairs of a row and a feature drawn at random.

    Attributes:
        pairs: how many were drawn; intervals are over the independent units of their rows.
        correlation: Pearson's, of estimates with exact effects.
        shuffled: control: the same with estimates permuted over pairs.
        error: mean absolute difference, in the metric's units.
        scale: control: mean absolute exact effect, the error of an estimate that is always zero.
        blind: share of the large exact effects that the estimate does not see.
        saturated: whether there is any of these.
        estimates: the estimate of each pair.
        exact: the exact effect of each.
    """

    pairs: int
    correlation: Measured
    shuffled: Measured
    error: Measured
    scale: Measured
    blind: float
    saturated: bool
    estimates: Float[np.ndarray, " pairs"]
    exact: Float[np.ndarray, " pairs"]

    @property
    def words(self) -> str:
        """For people."""
        found = self.correlation.estimate
        said = (
            f"correlation with exact replacement {found:.2f} on {self.pairs} pairs"
            if found is not None
            else ""
        )
        if self.saturated:
            said += f"; saturated: {self.blind:.0%} of the large effects are invisible to it"
        return said


def measure(
    explicand: Explicand,
    reference: Reference,
    estimates: Float[np.ndarray, "rows features"],
    pairs: int,
    seed: Seed,
) -> FirstOrder:
    """Replace ``pairs`` features for real and compare.

    Args:
        explicand: what is explained.
        reference: what features are replaced by.
        estimates: of what replacing each would change, in the metric's units.
        pairs: how many to replace; all if there are fewer.
        seed: of the draws.

    Raises:
        TooLittleData: no feature is there.
    """
    rows, features = explicand.present.numpy().nonzero()
    if len(rows) == 0:
        raise TooLittleData("rows without features", "at least one")
    chosen = np.sort(seed.child("pairs").numpy().permutation(len(rows))[:pairs])
    rows, features = rows[chosen], features[chosen]
    exact = one_by_one(explicand, reference, rows, features)
    guessed = estimates[rows, features]
    large = np.abs(exact) >= LARGE * np.abs(exact).max()
    large &= np.abs(exact) > 1e-9
    unseen = large & (np.abs(guessed) < BLIND * np.abs(exact))
    blind = float(unseen.sum() / large.sum()) if large.any() else 0.0
    units = explicand.batch.units[rows]
    shuffled = seed.child("shuffled").numpy().permutation(guessed)
    return FirstOrder(
        len(rows),
        _correlation(guessed, exact, units, seed.child("correlation")),
        _correlation(shuffled, exact, units, seed.child("correlation")),
        over_rows(np.abs(guessed - exact), units, seed.child("error"), 0.0),
        over_rows(np.abs(exact), units, seed.child("error"), 0.0),
        blind,
        bool(unseen.any()),
        guessed,
        exact,
    )


def _correlation(x: np.ndarray, y: np.ndarray, units: np.ndarray, seed: Seed) -> Measured:
    unit, at = np.unique(units, return_inverse=True)
    draws = Resamples(len(unit), INTERVAL_DRAWS, seed)
    return draws.measure([moments(x, y, at, len(unit))], Correlation()).measured
