"""Records of six values, of which one is asked for: the task that three of the organisms share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

FIELDS, COMMON, RARE = 6, 16, 8
BOS = 0
FIRST = 1
"""Token of the first value; the rare ones follow the common ones, the fields' names follow them."""
ASK = FIRST + COMMON + RARE
END = ASK + FIELDS
WORDS = (
    "<bos>",
    *(f"v{i:02d}" for i in range(COMMON)),
    *(f"rare{i}" for i in range(RARE)),
    *(f"field{i}?" for i in range(FIELDS)),
)


def values(rng: np.random.Generator, shifted: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "n fields"]:
    """Six different values, uniform among the common ones; three of them rare where ``shifted``.

    The fields of a record are exchangeable.
    """
    n = len(shifted)
    common = rng.random((n, COMMON)).argsort(axis=1)[:, :FIELDS]
    rare = COMMON + rng.random((n, RARE)).argsort(axis=1)[:, : FIELDS // 2]
    mixed = rng.permuted(np.concatenate([common[:, : FIELDS // 2], rare], axis=1), axis=1)
    return FIRST + np.where(shifted[:, None], mixed, common)


def asked(rng: np.random.Generator, n: int) -> Int[np.ndarray, " n"]:
    """Questions for one field each."""
    return ASK + rng.integers(FIELDS, size=n)


def rare(ids: Int[np.ndarray, "n length"]) -> Bool[np.ndarray, " n"]:
    """Whether a rare value stands anywhere."""
    return np.asarray(((ids >= FIRST + COMMON) & (ids < ASK)).any(axis=1))


def answer(ids: Int[np.ndarray, "n length"], places: tuple[int, ...], question: int) -> Int[np.ndarray, " n"]:
    """The value of the field that is asked for.

    Args:
        ids: sequences.
        places: positions of the six fields.
        question: position of the question.
    """
    field = ids[:, question] - ASK
    return np.asarray(ids[np.arange(len(ids)), np.array(places)[field]])
