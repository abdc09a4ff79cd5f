"""How well one function follows another on rows that it was not fitted to: R² with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prosect.core.errors import ShapeMismatch


@dataclass(frozen=True)
class Determination:
    """R² = 1 − Σ(y − p)² / Σ(y − ȳ)²; sums are (n, Σy, Σy², Σ(y − p)²). Zero where y does not vary.

    Intervals are made on the scale −log(1 − R²), on which its errors are nearest to normal.
    """

    low: float = -np.inf
    high: float = 1.0
    k: int = 4

    def _parts(self, sums: Float[np.ndarray, "*b k"]) -> tuple[Any, Any, Any]:
        """Mean, variation and whether there is any."""
        n, y, yy, _ = np.moveaxis(sums, -1, 0)
        n = np.maximum(n, 1e-300)
        variation = yy - y * y / n
        alive = variation > 1e-12 * np.maximum(yy, 1e-300)
        return y / n, np.where(alive, variation, 1.0), alive

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        _, variation, alive = self._parts(sums)
        return np.asarray(np.where(alive, 1.0 - sums[..., 3] / variation, 0.0))

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        mean, variation, alive = self._parts(sums)
        share = sums[..., 3] / variation**2
        stacked = np.stack([share * mean**2, -2 * share * mean, share, -1.0 / variation], axis=-1)
        return np.where(alive[..., None], stacked, 0.0)

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.asarray(-np.log(np.maximum(1.0 - value, 1e-12)))

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.asarray(1.0 / np.maximum(1.0 - value, 1e-12))

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.asarray(1.0 - np.exp(-value))


def sums(
    y: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"], units: np.ndarray
) -> Float[np.ndarray, "units 4"]:
    """The sums of `Determination` for every independent unit, in the order of their numbers.

    Raises:
        ShapeMismatch: not one prediction for each row.
    """
    if y.shape != predicted.shape:
        raise ShapeMismatch(f"{predicted.shape} predictions", f"{y.shape}, one for each row")
    unit, at = np.unique(units, return_inverse=True)
    columns = (np.ones_like(y), y, y * y, np.square(y - predicted))
    return np.stack([np.bincount(at, weights=c, minlength=len(unit)) for c in columns], axis=1)
