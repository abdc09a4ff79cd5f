"""Means over few seeds, with intervals that are honest about how few.

What varies is the seed of an organism; which organisms are on the bench is fixed, so an interval says nothing about
others. Each organism counts alike: a score is the mean over organisms of the mean over their seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from prosect.core.records import Measured
from prosect.core.seeds import Seed

T = "t over seeds within organisms (Welch-Satterthwaite)"
EXACT = "no variation between seeds; bounded by what as many seeds could have missed"
FLIPS = "sign flips over seeds"
MOST_EXACT = 12
"""Up to this many pairs every assignment of signs is tried."""
DRAWS = 4095


def over_seeds(scores: Mapping[str, Sequence[float]], low: float = -np.inf, high: float = np.inf) -> Measured:
    """Mean over organisms of the mean over seeds, and its 95 % interval.

    The variance is the sum of the variances of each organism's mean; degrees of freedom are Welch and Satterthwaite's
    (Satterthwaite 1946). Where no organism's scores vary, the interval is that of as many units that all agree: at
    most a share 1 − .025^(1/n) of others could have been missed.

    Args:
        scores: organism → one score for each seed.
        low, high: bounds of a score.
    """
    groups = [np.asarray(v, dtype=float) for v in scores.values() if len(v)]
    n = sum(map(len, groups))
    if not groups:
        return Measured(estimate=None, n=0, note="nothing to average")
    estimate = float(np.mean([g.mean() for g in groups]))
    if any(len(g) < 2 for g in groups):
        return Measured(estimate=estimate, n=n, note="an organism with one seed: no interval")
    parts = np.array([g.var(ddof=1) / len(g) for g in groups]) / len(groups) ** 2
    total = float(parts.sum())
    if total <= (1e-9 * max(1.0, abs(estimate))) ** 2:
        missed = 1.0 - 0.025 ** (1.0 / n)
        ends = (
            estimate - (estimate - low) * missed if np.isfinite(low) else estimate,
            estimate + (high - estimate) * missed if np.isfinite(high) else estimate,
        )
        return Measured(estimate=estimate, low=ends[0], high=ends[1], n=n, method=EXACT)
    from scipy.special import stdtrit

    freedom = total**2 / float(sum(p**2 / (len(g) - 1) for p, g in zip(parts, groups, strict=True)))
    reach = float(stdtrit(freedom, 0.975)) * total**0.5
    return Measured(
        estimate=estimate, low=max(low, estimate - reach), high=min(high, estimate + reach), n=n, method=T
    )


def paired(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    seed: Seed,
    span: float = np.inf,
) -> tuple[Measured, float]:
    """The difference on the same seeds of the same organisms, its interval, and p of "there is none", two-sided.

    p is that of sign flips (Fisher 1935): exact up to `MOST_EXACT` pairs, else from `DRAWS` random flips.

    Args:
        ours, theirs: organism → one score for each seed, in the same order.
        seed: of the flips.
        span: the largest difference there can be.
    """
    differences = {
        name: np.asarray(ours[name], dtype=float) - np.asarray(theirs[name], dtype=float) for name in ours
    }
    found = over_seeds({k: v.tolist() for k, v in differences.items()}, -span, span)
    groups = [d for d in differences.values() if len(d)]
    weighted = np.concatenate([d / len(d) / len(groups) for d in groups]) if groups else np.zeros(0)
    n = len(weighted)
    if not n:
        return found, 1.0
    if n <= MOST_EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        signs = seed.numpy().choice([1.0, -1.0], size=(DRAWS, n))
        signs[0] = 1.0  # what was observed is one of the assignments
    reached = np.abs(signs @ weighted) >= abs(float(weighted.sum())) - 1e-12
    return found, float(reached.mean())
