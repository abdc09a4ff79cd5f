"""The task of the LSTMs: at every place, whether the brackets read so far are balanced.

Tokens are an opening bracket, a closing one, and one that is neither. What has been read is balanced if as many
brackets were closed as opened and never more. The state that decides it is two numbers: the depth, and whether it
has ever been below zero.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.organisms.sources import SequenceSource, parts

OTHER, OPEN, CLOSE = 0, 1, 2
VOCABULARY = (".", "(", ")")
SHORTEST, LONGEST, FAR = 4, 16, 32
"""Lengths; those of ``shift`` are above `LONGEST` and up to `FAR`."""


def depth(ids: Int[np.ndarray, "rows positions"]) -> Int[np.ndarray, "rows positions"]:
    """Brackets opened less brackets closed, up to and including each place."""
    return np.asarray(np.cumsum((ids == OPEN).astype(np.int64) - (ids == CLOSE), axis=1))


def broken(ids: Int[np.ndarray, "rows positions"]) -> Bool[np.ndarray, "rows positions"]:
    """Whether the depth has been below zero."""
    return np.asarray(np.minimum.accumulate(depth(ids), axis=1) < 0)


def balanced(ids: Int[np.ndarray, "rows positions"]) -> Bool[np.ndarray, "rows positions"]:
    """The right answer at every place."""
    return np.asarray((depth(ids) == 0) & ~broken(ids))


def every(length: int) -> Int[np.ndarray, "rows length"]:
    """Every string of this length."""
    codes = np.arange(3**length)
    return codes[:, None] // 3 ** np.arange(length) % 3


def draw(rng: np.random.Generator, length: int) -> Int[np.ndarray, " length"]:
    """A string: half of the time any, else one that is never broken and in two cases of three ends at depth zero."""
    if rng.random() < 0.5:
        return rng.integers(3, size=length)
    ends = rng.random() < 2 / 3
    out, now = np.zeros(length, dtype=np.int64), 0
    for t, (kind, way) in enumerate(rng.random((length, 2))):
        due = ends and now >= length - t
        if (kind < 0.25 and not due) or (ends and now == 0 and t == length - 1):
            continue
        closes = due or (now > 0 and way < 0.6)
        out[t] = CLOSE if closes else OPEN
        now += -1 if closes else 1
    return out


def source(
    name: str,
    seed: int = 0,
    folds: int = 2,
    explore: int = 400,
    validate: int = 128,
    sealed: int = 128,
    shift: int = 128,
) -> SequenceSource:
    """Strings of 4 to 16 tokens; in ``shift`` of 17 to 32."""
    root = Seed(seed).child(name, "data")

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        rng = root.child(part, i).numpy()
        low, high = (LONGEST + 1, FAR) if part == "shift" else (SHORTEST, LONGEST)
        return draw(rng, int(rng.integers(low, high + 1)))

    units = parts(explore, validate, folds, sealed, shift)
    return SequenceSource.of(name, seed, make, units, VOCABULARY, lead=0)


def labels(data: SequenceSource) -> dict[str, Bool[np.ndarray, " rows"]]:
    """``balanced@PART``: whether each whole string of a part is balanced."""
    out = {}
    for part in data.units:
        if part.startswith("explore."):
            continue
        found = [
            answer[length - 1]
            for batch in data.batches(part, 64)
            for answer, length in zip(
                balanced(batch.tensors["input_ids"].numpy()), batch.lengths, strict=True
            )
        ]
        out[f"balanced@{part}"] = np.array(found)
    return out


def answers(input_ids: Int[Tensor, "rows positions"]) -> Int[Tensor, "rows positions"]:
    """1 where balanced, 0 where not: the right logit's number at every place."""
    return torch.from_numpy(balanced(input_ids.numpy()).astype(np.int64))
