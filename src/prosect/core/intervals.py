"""Intervals and p-values for anything that is a smooth function of sums over independent units.

Every metric of a test is written as sums that each independent unit (a cluster of documents, an input,
an organism's seed) adds to: a mean as (count, total), a correlation as six moments. One resampling
scheme then serves all of them, paired across a component and its rivals because the same units are drawn
for both.

The method is the studentised bootstrap over units (Efron & Tibshirani 1993, chapter 12): each resample's
deviation is divided by its own infinitesimal-jackknife standard error, the observed one by its
delete-one jackknife standard error, which is slightly wider in small samples. On skewed sums of 30 units
a percentile interval covers about .90; this one stays near .95 (benchmarks/truthfulness.py measures it).
More than `MOST_UNITS` units are first added up into that many random groups, which changes nothing in
expectation and bounds time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prosect.core.errors import NotFinite, ShapeMismatch
from prosect.core.records import Measured
from prosect.core.seeds import Seed

MOST_UNITS = 400
METHOD = "studentised bootstrap over units"
EXACT = "no variation between units; bounded by what as many units could have missed"

Sums = Float[np.ndarray, "units k"]


@runtime_checkable
class Statistic(Protocol):
    """A number computed from sums, with its gradient; `low` and `high` bound its values."""

    k: int
    low: float
    high: float

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        """The statistic at ``sums``."""

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        """Its derivative with respect to each sum."""

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        """To the scale on which its distribution is nearest to normal."""

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        """Derivative of `transform`."""

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        """Inverse of `transform`."""


@dataclass(frozen=True)
class Mean:
    """Total over count: sums are (count, total). With varying counts this is a ratio estimator."""

    low: float = -np.inf
    high: float = np.inf
    k: int = 2

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        count, total = sums[..., 0], sums[..., 1]
        return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=count > 0))

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        count = sums[..., 0]
        inverse = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
        return np.stack([-self.value(sums) * inverse, inverse], axis=-1)

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.ones_like(value)

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of x and y; sums are (n, Σx, Σy, Σx², Σy², Σxy). Zero where either is constant.

    Intervals are made on Fisher's scale, artanh r.
    """

    low: float = -1.0
    high: float = 1.0
    k: int = 6
    _edge: float = 1.0 - 1e-9

    def _parts(self, sums: Float[np.ndarray, "*b k"]) -> tuple[Any, ...]:
        n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        n = np.maximum(n, 1e-300)
        vx, vy, c = xx - x * x / n, yy - y * y / n, xy - x * y / n
        alive = (vx > 1e-12 * np.maximum(xx, 1e-300)) & (vy > 1e-12 * np.maximum(yy, 1e-300))
        root = np.sqrt(np.where(alive, vx * vy, 1.0))
        return n, x, y, np.where(alive, vx, 1.0), np.where(alive, vy, 1.0), c, root, alive

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        *_, c, root, alive = self._parts(sums)
        return np.asarray(np.where(alive, np.clip(c / root, -1.0, 1.0), 0.0))

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        n, x, y, vx, vy, c, root, alive = self._parts(sums)
        r = c / root
        # dr = dc/root − r/2 (dvx/vx + dvy/vy), with dvx = dxx − 2x/n dx + (x/n)² dn, and so on
        mx, my = x / n, y / n
        d_n = mx * my / root - r / 2 * (mx * mx / vx + my * my / vy)
        d_x = -my / root + r * mx / vx
        d_y = -mx / root + r * my / vy
        stacked = np.stack([d_n, d_x, d_y, -r / (2 * vx), -r / (2 * vy), 1.0 / root], axis=-1)
        return np.where(alive[..., None], stacked, 0.0)

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.asarray(np.arctanh(np.clip(value, -self._edge, self._edge)))

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        clipped = np.clip(value, -self._edge, self._edge)
        return np.asarray(1.0 / (1.0 - clipped * clipped))

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.asarray(np.tanh(value))


def moments(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], unit: np.ndarray, units: int
) -> Float[np.ndarray, "units 6"]:
    """The six sums of `Correlation` for every unit.

    Args:
        x: measured values, one for each observation.
        y: predicted values.
        unit: which unit each observation belongs to, in [0, units).
        units: how many there are.
    """
    columns = (None, x, y, x * x, y * y, x * y)
    return np.stack([np.bincount(unit, weights=c, minlength=units).astype(float) for c in columns], axis=-1)


@dataclass(frozen=True)
class Result:
    """What resampling gives for one number: `measured`, and the p-value against a margin."""

    measured: Measured
    p: float | None


class Resamples:
    """The draws shared by every number of a family, so that all comparisons are paired.

    Args:
        units: how many independent units there are.
        draws: resamples, B.
        seed: names the draws; the same seed gives the same draws.
    """

    def __init__(self, units: int, draws: int, seed: Seed) -> None:
        self.units, self.draws = units, draws
        groups = min(units, MOST_UNITS)
        self._group = seed.child("groups").numpy().permutation(units) % groups if units > MOST_UNITS else None
        rng = seed.child("draws").numpy()
        self._weights = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=draws).astype(np.float32)

    def _grouped(self, sums: Sums) -> Float[np.ndarray, "groups k"]:
        if self._group is None:
            return sums
        out = np.zeros((MOST_UNITS, sums.shape[1]))
        np.add.at(out, self._group, sums)
        return out

    def measure(
        self,
        parts: Sequence[Sums],
        statistic: Statistic,
        *,
        weights: Sequence[float] = (1.0,),
        margin: float = 0.0,
    ) -> Result:
        """Estimate Σ weights·statistic(parts), its 95 % interval and p of "at most ``margin``".

        With one part the statistic's own scale is used; a combination (component minus the mean of its
        rivals) is studentised on the plain scale.

        Args:
            parts: for each term, sums of shape (units, k), units in the same order.
            weights: one for each part.
            margin: what the number has to exceed.

        Raises:
            ShapeMismatch: a part does not have this many units.
            NotFinite: a sum is NaN or infinite.
        """
        if len(parts) != len(weights):
            raise ShapeMismatch(f"{len(parts)} parts and {len(weights)} weights", "one weight for each part")
        grouped = []
        for part in parts:
            if part.shape != (self.units, statistic.k):
                raise ShapeMismatch(f"sums of shape {part.shape}", f"({self.units}, {statistic.k})")
            if not np.isfinite(part).all():
                raise NotFinite(
                    "NaN or infinity in a test's sums", "finite sums", "looking at the site measured"
                )
            grouped.append(self._grouped(np.asarray(part, dtype=float)))
        single = len(parts) == 1 and weights[0] == 1.0
        n = len(grouped[0])
        totals = [g.sum(axis=0) for g in grouped]
        estimate = float(sum(w * statistic.value(t) for w, t in zip(weights, totals, strict=True)))
        if n < 2:
            return Result(Measured(estimate=estimate, n=self.units, note="one unit: no interval"), None)

        left_out = sum(w * statistic.value(t - g) for w, t, g in zip(weights, totals, grouped, strict=True))
        centre = np.asarray(estimate)
        if single:
            left_out, centre = statistic.transform(np.asarray(left_out)), statistic.transform(centre)
        error = float(np.sqrt((n - 1) / n * np.sum((left_out - np.mean(left_out)) ** 2)))
        scale = max(1.0, abs(float(centre)))
        if error <= 1e-12 * scale:
            return self._exact(estimate, statistic, weights, margin)

        drawn = np.zeros(self.draws)
        influence = np.zeros((self.draws, n), dtype=np.float32)
        for w, g in zip(weights, grouped, strict=True):
            sums = self._weights @ g.astype(np.float64)
            value = statistic.value(sums)
            gradient = w * statistic.gradient(sums)
            drawn += w * value
            if single:
                gradient = gradient * statistic.slope(value)[:, None]
            influence += (gradient @ g.T).astype(np.float32)
        if single:
            drawn = statistic.transform(drawn)
        spread = np.sqrt(np.einsum("bn,bn,bn->b", self._weights, influence, influence) * n / (n - 1))
        deviation = drawn - float(centre)
        t = np.divide(deviation, spread, out=np.zeros(self.draws), where=spread > 1e-9 * error)
        t[(spread <= 1e-9 * error) & (deviation > 0)] = np.inf
        t[(spread <= 1e-9 * error) & (deviation < 0)] = -np.inf
        t.sort()
        low_t, high_t = _quantile(t, 0.025), _quantile(t, 0.975)
        ends = np.array([float(centre) - high_t * error, float(centre) - low_t * error])
        target = np.asarray(margin)
        if single:
            ends, target = statistic.back(ends), statistic.transform(target)
        bound_low, bound_high = _bounds(statistic, weights)
        low, high = (_finite(np.clip(e, bound_low, bound_high)) for e in ends)
        observed = (float(centre) - float(target)) / error
        p = (1 + int(np.count_nonzero(t >= observed))) / (self.draws + 1)
        return Result(Measured(estimate=estimate, low=low, high=high, n=self.units, method=METHOD), p)

    def _exact(
        self, estimate: float, statistic: Statistic, weights: Sequence[float], margin: float
    ) -> Result:
        """All units agree. What n units could have missed is at most a share 1 − .025^(1/n) of others."""
        low_bound, high_bound = _bounds(statistic, weights)
        missed = 1.0 - 0.025 ** (1.0 / self.units)
        low = estimate - (estimate - low_bound) * missed if np.isfinite(low_bound) else estimate
        high = estimate + (high_bound - estimate) * missed if np.isfinite(high_bound) else estimate
        floor = 1.0 / (self.draws + 1)
        p = 1.0
        if estimate > margin:
            needed = (estimate - margin) / (estimate - low_bound) if np.isfinite(low_bound) else 1.0
            p = max(floor, (1.0 - min(needed, 1.0)) ** self.units)
        measured = Measured(estimate=estimate, low=float(low), high=float(high), n=self.units, method=EXACT)
        return Result(measured, p)


def _bounds(statistic: Statistic, weights: Sequence[float]) -> tuple[float, float]:
    low = sum(w * (statistic.low if w > 0 else statistic.high) for w in weights)
    high = sum(w * (statistic.high if w > 0 else statistic.low) for w in weights)
    return low, high


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _quantile(ordered: Float[np.ndarray, " b"], q: float) -> float:
    """The (B+1)q-th order statistic, the one that makes a bootstrap-t interval exact when t is pivotal."""
    index = round((len(ordered) + 1) * q) - 1
    return float(ordered[min(max(index, 0), len(ordered) - 1)])
