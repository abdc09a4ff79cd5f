"""Idle words among those that matter; a rare one among them is the harmless shift of two of the organisms."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

COMMON, RARE = 16, 8
WORDS = (*(f"w{i:02d}" for i in range(COMMON)), *(f"rare{i}" for i in range(RARE)))


def words(
    rng: np.random.Generator, first: int, many: int, shifted: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, "n many"]:
    """Common words, uniform; the second of them is a rare one where ``shifted``.

    Args:
        rng: to draw from.
        first: token of the first of `WORDS`.
        many: words in each sequence, two or more.
        shifted: of each sequence.
    """
    out = first + rng.integers(COMMON, size=(len(shifted), many))
    unusual = first + COMMON + rng.integers(RARE, size=len(shifted))
    out[:, 1] = np.where(shifted, unusual, out[:, 1])
    return out


def rare(ids: Int[np.ndarray, "n length"], first: int) -> Bool[np.ndarray, " n"]:
    """Whether a rare word stands anywhere in sequences whose idle words begin with token ``first``."""
    return np.asarray(((ids >= first + COMMON) & (ids < first + COMMON + RARE)).any(axis=1))
