"""One number measured on several independent seeds: its mean, and how far the mean can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from prosect.core.errors import NotFinite, TooLittleData
from prosect.core.records import Measured

JACKKNIFE = "delete-one jackknife over seeds, Student's t"


def over_seeds(values: Sequence[float], unit: str = "seed") -> Measured:
    """The mean of independent runs with its 95 % t-interval; one run has none.

    Args:
        values: one for each run.
        unit: what a run is, in words, where it is something other than a seed.

    Raises:
        TooLittleData: there is no value.
        NotFinite: one is NaN or infinite.
    """
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise TooLittleData("no values", "at least one")
    if not np.isfinite(x).all():
        raise NotFinite(f"the values {list(values)[:8]}", "finite ones")
    if len(x) < 2:
        return Measured(estimate=float(x.mean()), n=1, note=f"one {unit}: no interval")
    return _interval(
        float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))), len(x), f"Student's t over {unit}s"
    )


def over_pairs(n: int, value: Callable[[int, int], float]) -> Measured:
    """The mean over all pairs of n independent runs, with a 95 % interval.

    Pairs share runs, so they are no sample of independent numbers. The jackknife leaves out one run, and with it
    every pair it is in (Arvesen 1969, "Jackknifing U-statistics").

    Args:
        n: runs.
        value: of the pair (i, j), i < j.

    Raises:
        TooLittleData: fewer than two runs.
        NotFinite: a value is NaN or infinite.
    """
    if n < 2:
        raise TooLittleData(f"{n} runs", "at least two, which make a pair")
    pairs = {pair: value(*pair) for pair in combinations(range(n), 2)}
    found = np.array(list(pairs.values()))
    if not np.isfinite(found).all():
        raise NotFinite(f"the values {found[:8].tolist()}", "finite ones")
    if n < 3:
        return Measured(estimate=float(found.mean()), n=n, note="one pair: no interval")
    left_out = np.array([np.mean([v for pair, v in pairs.items() if i not in pair]) for i in range(n)])
    error = math.sqrt((n - 1) / n * float(np.square(left_out - left_out.mean()).sum()))
    return _interval(float(found.mean()), error, n, JACKKNIFE)


def _interval(estimate: float, error: float, n: int, method: str) -> Measured:
    from scipy.stats import t

    reach = float(t.ppf(0.975, n - 1)) * error
    return Measured(estimate=estimate, low=estimate - reach, high=estimate + reach, n=n, method=method)
