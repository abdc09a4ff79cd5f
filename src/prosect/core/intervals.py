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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prosect.core.errors import NotFinite, ShapeMismatch
from prosect.core.records import Measured
from prosect.core.seeds import Seed

MOST_UNITS = 200
CHUNK = 250
"""Resamples computed at a time, so that what is worked on stays in the cache."""
INTERVAL_DRAWS = 2000
"""Resamples of a number on whose p-value nothing hangs."""
SPREAD_FLOOR = 0.2
"""Least standard error of a resample, as a share of the observed one: a resample that happens to leave out the
only units that differ has none of its own, and would otherwise count as infinitely far away."""
METHOD = "studentised bootstrap over units"
EXACT = "no variation between units; bounded by what as many units could have missed"

Sums = Float[np.ndarray, "units k"]


@runtime_checkable
class Statistic(Protocol):
    """A number computed from sums, with its gradient."""

    @property
    def k(self) -> int:
        """How many sums it is made of."""

    @property
    def low(self) -> float:
        """Its smallest possible value."""

    @property
    def high(self) -> float:
        """Its largest possible value."""

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
        return self.both(sums)[1]

    def both(
        self, sums: Float[np.ndarray, "*b k"]
    ) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b k"]]:
        """Value and gradient, which share most of the work."""
        n, x, y, vx, vy, c, root, alive = self._parts(sums)
        r = c / root
        value = np.where(alive, np.clip(r, -1.0, 1.0), 0.0)
        # dr = dc/root − r/2 (dvx/vx + dvy/vy), with dvx = dxx − 2x/n dx + (x/n)² dn, and so on
        mx, my = x / n, y / n
        d_n = mx * my / root - r / 2 * (mx * mx / vx + my * my / vy)
        d_x = -my / root + r * mx / vx
        d_y = -mx / root + r * my / vy
        stacked = np.stack([d_n, d_x, d_y, -r / (2 * vx), -r / (2 * vy), 1.0 / root], axis=-1)
        return value, np.where(alive[..., None], stacked, 0.0)

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


@dataclass(frozen=True)
class Term:
    """Σ weights · statistic(parts), such as one component, or the mean over six controls.

    Attributes:
        parts: sums of shape (units, k) for each, units in the same order.
        weights: one for each part.
    """

    parts: Sequence[Sums]
    weights: Sequence[float] = (1.0,)

    @classmethod
    def mean(cls, parts: Sequence[Sums]) -> Term:
        """The plain mean over parts."""
        return cls(parts, [1.0 / len(parts)] * len(parts))


@dataclass(frozen=True)
class Contrast:
    """A number wanted: a term, or its difference from another.

    Attributes:
        of: index of the term.
        against: index of the term to subtract; None for none.
        margin: what the number has to exceed.
        decides: whether a verdict hangs on its p-value, which then needs all the draws.
    """

    of: int
    against: int | None = None
    margin: float = 0.0
    decides: bool = False


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
        share = np.full(groups, 1.0 / groups)
        self._counts = np.empty((draws, groups), dtype=np.uint8)
        for start in range(0, draws, CHUNK):
            drawn = rng.multinomial(groups, share, size=min(CHUNK, draws - start))
            self._counts[start : start + CHUNK] = np.minimum(drawn, 255)

    def _grouped(self, sums: Sums, k: int) -> Float[np.ndarray, "groups k"]:
        if sums.shape != (self.units, k):
            raise ShapeMismatch(f"sums of shape {sums.shape}", f"({self.units}, {k})")
        if not np.isfinite(sums).all():
            raise NotFinite("NaN or infinity in a test's sums", "finite sums", "looking at the site measured")
        if self._group is None:
            return np.asarray(sums, dtype=float)
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

        Args and errors are those of `contrasts`, for a single term.
        """
        (found,) = self.contrasts([Term(parts, weights)], [Contrast(0, None, margin, True)], statistic)
        return found

    def contrasts(
        self, terms: Sequence[Term], wanted: Sequence[Contrast], statistic: Statistic
    ) -> list[Result]:
        """Estimate, 95 % interval and p-value of every contrast, on the same resamples.

        A term of one part by itself is studentised on the statistic's own scale; a combination on the plain
        scale. Numbers on which nothing hangs get `INTERVAL_DRAWS` resamples; so does a claim of which some
        deciding contrast has a p above .05 by then, because no later draw could save it.

        Args:
            terms: what the contrasts are made of.
            wanted: the contrasts.
            statistic: what the sums mean.

        Raises:
            ShapeMismatch: a part does not have this many units.
            NotFinite: a sum is NaN or infinite.
        """
        held = [_Held.of(t, statistic, self._grouped) for t in terms]
        made = [
            _Made(c, held[c.of], None if c.against is None else held[c.against], statistic) for c in wanted
        ]
        open_ = [m for m in made if m.error > 1e-12 * max(1.0, abs(m.centre))] if self.groups > 1 else []
        for start in range(0, self.draws, CHUNK):
            if start >= INTERVAL_DRAWS:
                if any(m.contrast.decides and m.p > 0.05 for m in open_):
                    break
                open_ = [m for m in open_ if m.contrast.decides]
            if not open_:
                break
            counts = self._counts[start : start + CHUNK].astype(float)
            drawn = {id(h): h.drawn(counts, statistic) for m in open_ for h in m.terms}
            for m in open_:
                m.take(counts, [drawn[id(h)] for h in m.terms])
        return [self._result(m, statistic) for m in made]

    @property
    def groups(self) -> int:
        """Units, or groups of units, that are resampled."""
        return int(self._counts.shape[1])

    def _result(self, made: _Made, statistic: Statistic) -> Result:
        if self.groups < 2:
            nothing = Measured(estimate=made.estimate, n=self.units, note="one unit: no interval")
            return Result(nothing, None)
        if not made.t:
            return self._exact(made.estimate, statistic, made.weights, made.contrast.margin)
        t = np.sort(np.concatenate(made.t))
        low_t, high_t = _quantile(t, 0.025), _quantile(t, 0.975)
        ends = np.array([made.centre - high_t * made.error, made.centre - low_t * made.error])
        if made.single:
            ends = statistic.back(ends)
        bound_low, bound_high = _bounds(statistic, made.weights)
        low, high = (_finite(np.clip(e, bound_low, bound_high)) for e in ends)
        measured = Measured(estimate=made.estimate, low=low, high=high, n=self.units, method=METHOD)
        return Result(measured, made.p)

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


@dataclass
class _Held:
    """A term's sums, grouped: parts side by side in columns."""

    columns: Float[np.ndarray, "n c"]
    rows: Float[np.ndarray, "c n"]
    weights: Float[np.ndarray, " p"]
    estimate: float
    left_out: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, term: Term, statistic: Statistic, grouped: Callable[[Sums, int], Sums]) -> _Held:
        if len(term.parts) != len(term.weights):
            raise ShapeMismatch(
                f"{len(term.parts)} parts and {len(term.weights)} weights", "one weight for each part"
            )
        parts = np.stack([grouped(p, statistic.k) for p in term.parts])
        weights = np.asarray(term.weights, dtype=float)
        totals = parts.sum(axis=1)
        estimate = float(weights @ statistic.value(totals))
        left_out = weights @ statistic.value(totals[:, None] - parts)
        columns = np.ascontiguousarray(parts.transpose(1, 0, 2)).reshape(parts.shape[1], -1)
        return cls(columns, np.ascontiguousarray(columns.T), weights, estimate, left_out)

    def drawn(self, counts: Float[np.ndarray, "b n"], statistic: Statistic) -> _Drawn:
        """Value and influence of every unit, in each resample."""
        sums = (counts @ self.columns).reshape(len(counts), len(self.weights), statistic.k)
        value, slope = _both(statistic, sums)
        gradient = slope * self.weights[:, None]
        flat = gradient.reshape(len(counts), -1)
        return _Drawn(value @ self.weights, flat @ self.rows)


def _both(statistic: Statistic, sums: Float[np.ndarray, "*b k"]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(statistic, Correlation):
        return statistic.both(sums)
    return statistic.value(sums), statistic.gradient(sums)


@dataclass
class _Drawn:
    value: Float[np.ndarray, " b"]
    influence: Float[np.ndarray, "b n"]


class _Made:
    """One contrast while resamples are drawn."""

    def __init__(self, contrast: Contrast, of: _Held, against: _Held | None, statistic: Statistic) -> None:
        self.contrast, self.statistic = contrast, statistic
        self.terms = [of] if against is None else [of, against]
        self.single = against is None and len(of.weights) == 1 and of.weights[0] == 1.0
        self.weights = [*of.weights, *(() if against is None else -against.weights)]
        self.estimate = of.estimate - (0.0 if against is None else against.estimate)
        left_out = of.left_out - (0.0 if against is None else against.left_out)
        centre, target = np.asarray(self.estimate), np.asarray(contrast.margin)
        if self.single:
            left_out, centre = statistic.transform(left_out), statistic.transform(centre)
            target = statistic.transform(target)
        n = len(left_out)
        self.centre = float(centre)
        self.error = float(np.sqrt((n - 1) / n * np.sum((left_out - np.mean(left_out)) ** 2)))
        self.observed = (self.centre - float(target)) / self.error if self.error > 0 else 0.0
        self.t: list[Float[np.ndarray, " b"]] = []
        self._reached = self._drawn = 0

    def take(self, counts: Float[np.ndarray, "b n"], drawn: Sequence[_Drawn]) -> None:
        """Add the t of some resamples."""
        value, influence = drawn[0].value, drawn[0].influence
        if self.single:
            influence = influence * self.statistic.slope(value)[:, None]
            value = self.statistic.transform(value)
        elif len(drawn) == 2:
            value, influence = value - drawn[1].value, influence - drawn[1].influence
        n = counts.shape[1]
        square = np.einsum("bn,bn->b", influence * influence, counts)
        spread = np.sqrt(np.maximum(square, 0.0) * n / (n - 1))
        t = (value - self.centre) / np.maximum(spread, SPREAD_FLOOR * self.error)
        self.t.append(t)
        self._reached += int(np.count_nonzero(t >= self.observed))
        self._drawn += len(t)

    @property
    def p(self) -> float:
        """Share of resamples that deviate as far as the observed number stands above its margin."""
        return (1 + self._reached) / (self._drawn + 1)


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
