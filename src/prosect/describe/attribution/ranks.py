"""How alike two maps are: rank correlation, with and without sign, and local structure."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from prosect.core.errors import ShapeMismatch
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed

WINDOW = 7
"""Side of the windows of `structure`, as in Wang et al. 2004, whose Gaussian window has about that width."""


def spearman(
    a: Float[np.ndarray, "rows features"],
    b: Float[np.ndarray, "rows features"],
    present: Bool[np.ndarray, "rows features"],
) -> Float[np.ndarray, " rows"]:
    """Spearman's rank correlation of each row's features, ties at their mean rank.

    Zero where either is constant: a map that ranks nothing agrees with none.
    """
    from scipy.stats import rankdata

    out = np.zeros(len(a))
    for row in range(len(a)):
        at = present[row]
        if at.sum() < 2:
            continue
        x, y = (rankdata(m[row, at]) for m in (a, b))
        x, y = x - x.mean(), y - y.mean()
        size = np.sqrt((x @ x) * (y @ y))
        out[row] = float(x @ y / size) if size > 0 else 0.0
    return out


def structure(
    a: Float[np.ndarray, "rows height width"], b: Float[np.ndarray, "rows height width"]
) -> Float[np.ndarray, " rows"]:
    """Structural similarity of two pictures, each scaled to [0, 1] by its own range first.

    Wang et al. 2004, "Image quality assessment", equation 13 with C₁ = .01², C₂ = .03², over uniform windows;
    Adebayo et al. 2018 compare maps so. A constant picture scores 0.
    """
    from scipy.ndimage import uniform_filter

    if a.shape != b.shape or a.ndim != 3:
        raise ShapeMismatch(f"pictures {a.shape} and {b.shape}", "both (rows, height, width)")
    out = np.zeros(len(a))
    side = min(WINDOW, *a.shape[1:])
    for row in range(len(a)):
        if np.ptp(a[row]) == 0 or np.ptp(b[row]) == 0:
            continue
        x, y = ((m - m.min()) / np.ptp(m) for m in (a[row], b[row]))
        mean_x, mean_y = (uniform_filter(m, side, mode="reflect") for m in (x, y))
        var_x = uniform_filter(x * x, side, mode="reflect") - mean_x**2
        var_y = uniform_filter(y * y, side, mode="reflect") - mean_y**2
        both = uniform_filter(x * y, side, mode="reflect") - mean_x * mean_y
        top = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
        out[row] = float((top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))).mean())
    return out


def over_rows(
    values: Float[np.ndarray, " rows"],
    units: np.ndarray,
    seed: Seed,
    low: float = -np.inf,
    high: float = np.inf,
) -> Measured:
    """The mean over rows with its 95 % interval, resampled over independent units (documents, inputs).

    Args:
        values: one for each row.
        units: the independent unit of each row; rows of one unit are drawn together.
        seed: of the draws.
        low: smallest possible value of a row.
        high: largest possible value.
    """
    unit, at = np.unique(units, return_inverse=True)
    count = np.bincount(at, minlength=len(unit)).astype(float)
    total = np.bincount(at, weights=values, minlength=len(unit))
    draws = Resamples(len(unit), INTERVAL_DRAWS, seed)
    return draws.measure([np.stack([count, total], axis=1)], Mean(low, high)).measured
