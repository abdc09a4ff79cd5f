"""Many tests at once: Holm decides, Benjamini-Hochberg explores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def holm(p: Sequence[float], m: int | None = None) -> Float[np.ndarray, " tests"]:
    """Holm's step-down adjusted p-values (Holm 1979).

    Args:
        p: raw p-values.
        m: how many tests were registered, if more than were run; the missing ones count as p = 1.
    """
    values = np.asarray(p, dtype=float)
    total = max(m or 0, len(values))
    order = np.argsort(values, kind="stable")
    stepped = values[order] * (total - np.arange(len(values)))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(values) else stepped
    return adjusted


def benjamini_hochberg(p: Sequence[float], m: int | None = None) -> Float[np.ndarray, " tests"]:
    """Benjamini-Hochberg q-values (Benjamini & Hochberg 1995); exploratory, never a verdict."""
    values = np.asarray(p, dtype=float)
    total = max(m or 0, len(values))
    order = np.argsort(values, kind="stable")[::-1]
    ranks = np.arange(len(values), 0, -1)
    q = np.empty_like(values)
    q[order] = np.minimum(np.minimum.accumulate(values[order] * total / ranks), 1.0) if len(values) else 0.0
    return q


def draws_needed(tests: int, alpha: float) -> int:
    """Resamples with which the smallest p, 1/(B+1), reaches alpha/tests with room to spare.

    Twice the bare minimum, so that a claim is not lost to the single draw that happens to exceed it.
    """
    return int(np.ceil(2.0 * max(tests, 1) / alpha))
