"""Shares and ranks: exact intervals for counts, p-values for a place in a pool."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from prosect.core.records import Measured


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval for a share (Clopper & Pearson 1934); (0, 1) without trials."""
    from scipy.special import betaincinv

    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def share(successes: int, trials: int) -> Measured:
    """A share of independent trials with its exact interval."""
    if trials == 0:
        return Measured(estimate=None, n=0, note="nothing to count")
    low, high = clopper_pearson(successes, trials)
    return Measured(estimate=successes / trials, low=low, high=high, n=trials, method="Clopper-Pearson")


def rank_p(score: float, pool: Float[np.ndarray, " n"]) -> float:
    """(1 + how many of the pool reach ``score``) / (1 + pool): the chance of ranking so high among equals."""
    return (1 + int(np.count_nonzero(np.asarray(pool) >= score))) / (1 + len(pool))
