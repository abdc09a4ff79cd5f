"""Does each expert serve one cluster? Mutual information between which expert answers and what the input is.

The plug-in estimate is too high on few inputs: independent variables share (a - 1)(b - 1) / 2n nats by chance alone
(Miller 1955). What permuted clusters give is taken off instead, which holds for soft assignments as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed


@dataclass(frozen=True)
class Specialisation:
    """How much an expert says about the cluster, in nats.

    Attributes:
        information: plug-in estimate.
        chance: its mean where the clusters are permuted.
        corrected: what is left of the estimate, never below 0.
        most: log of the number of clusters or experts, whichever is less, and no more than the clusters' entropy.
        p: share of permutations that give as much, with one added to both counts.
    """

    information: float
    chance: float
    corrected: float
    most: float
    p: float


def specialisation(
    shares: Float[np.ndarray, "n experts"], clusters: Int[np.ndarray, " _"], seed: Seed, draws: int = 200
) -> Specialisation:
    """Mutual information of expert and cluster.

    Args:
        shares: of each expert in each input's answer, not negative; rows are made to sum to 1. One-hot where a
            single expert answers.
        clusters: of each input, from 0.
        seed: of the permutations.
        draws: how many.

    Raises:
        ShapeMismatch: not one cluster for each row.
        TooLittleData: fewer than two inputs, or no permutation.
        NotFinite: a share is NaN or infinite.
        BadInput: a share is negative, or a row has none.
    """
    p = np.asarray(shares, dtype=float)
    if p.ndim != 2 or len(p) != len(clusters):
        raise ShapeMismatch(f"shares {p.shape} and {len(clusters)} clusters", "one row for each cluster")
    if len(p) < 2 or draws < 1:
        raise TooLittleData(f"{len(p)} inputs and {draws} permutations", "at least two and one")
    if not np.isfinite(p).all():
        raise NotFinite("shares that are NaN or infinite", "finite ones")
    total = p.sum(axis=1, keepdims=True)
    if (p < 0).any() or (total <= 0).any():
        raise BadInput("negative shares or a row without any", "shares of at least 0, one of them above")
    p = p / total
    which = np.eye(int(clusters.max()) + 1)[clusters]
    found = information(which.T @ p / len(p))
    rng = seed.numpy()
    null = np.array([information(which[rng.permutation(len(p))].T @ p / len(p)) for _ in range(draws)])
    often = which.mean(axis=0)
    entropy = float(-(often[often > 0] * np.log(often[often > 0])).sum())
    return Specialisation(
        information=found,
        chance=float(null.mean()),
        corrected=max(found - float(null.mean()), 0.0),
        most=min(entropy, float(np.log(p.shape[1]))),
        p=float((1 + (null >= found - 1e-12).sum()) / (1 + draws)),
    )


def information(joint: Float[np.ndarray, "a b"]) -> float:
    """Mutual information of a joint distribution, nats."""
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return max(float((joint[there] * np.log(joint[there] / apart[there])).sum()), 0.0)
