"""Progress measures of a network that learns to add modulo p, from its logits on every pair and its weights.

A sum a + b is written as waves over the pairs: cos(2πk(a+b)/p) and sin(2πk(a+b)/p). Of the logits only the
part made of *key* waves is kept (restricted loss) or taken away (excluded loss); the first falls while a
network generalises inside, and the second rises, before its answers show it (Nanda et al. 2023, "Progress
measures for grokking via mechanistic interpretability", section 5.1). Which waves are key is chosen on the
pairs of explore alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData

KEPT = 0.9
"""Key waves carry this share of the power that waves of the sum have in the logits."""


@dataclass(frozen=True)
class Progress:
    """Where a network is in its training.

    Attributes:
        train_loss, test_loss: cross-entropy (nats) on pairs that were trained on and on the others.
        train_accuracy, test_accuracy: shares of right answers.
        restricted_loss: cross-entropy on all pairs with nothing but the key waves (and the mean over pairs)
            in the logits.
        excluded_loss: cross-entropy on the pairs trained on without the key waves in the logits.
        gini: of the norms of each table's Fourier components: 0 all equal, towards 1 few large ones.
        weights: sum of all squared weights.
    """

    train_loss: float
    test_loss: float
    train_accuracy: float
    test_accuracy: float
    restricted_loss: float
    excluded_loss: float
    gini: tuple[float, ...]
    weights: float


def key_frequencies(
    logits: Float[np.ndarray, "pairs p"], pairs: Int[np.ndarray, "pairs 2"], p: int, share: float = KEPT
) -> tuple[int, ...]:
    """The frequencies of the sum that carry most of what the logits say, from some of the pairs.

    Waves of all frequencies are fitted together by least squares, with a constant for each output.

    Args:
        logits: on these pairs, at the end of training.
        pairs: those of explore.
        p: modulus, odd.
        share: of the waves' power that the key frequencies are to carry, in (0, 1].

    Returns:
        Frequencies from 1 to (p − 1)/2, the strongest first.

    Raises:
        TooLittleData: fewer pairs than twice the waves.
        BadInput: an even modulus, or a share outside its range.
        ShapeMismatch: not one row of p logits for each pair.
        NotFinite: NaN or infinity in the logits.
    """
    _check(logits, (len(pairs), p), p)
    if not 0 < share <= 1:
        raise BadInput(f"share {share:g}", "above 0 and at most 1")
    if len(pairs) < 2 * p:
        raise TooLittleData(f"{len(pairs)} pairs for {p - 1} waves", f"{2 * p} or more", "a larger explore")
    wave = _waves(np.asarray(pairs).sum(axis=1), p, range(1, p // 2 + 1))
    design = np.concatenate([np.ones((len(pairs), 1)), wave], axis=1)
    found = np.linalg.lstsq(design, np.asarray(logits, dtype=np.float64), rcond=None)[0][1:]
    power = (found**2).sum(axis=1).reshape(-1, 2).sum(axis=1)
    order = np.argsort(-power, kind="stable")
    enough = int(np.searchsorted(np.cumsum(power[order]), share * power.sum() * (1 - 1e-12))) + 1
    return tuple(int(k) + 1 for k in order[:enough])


def progress(
    logits: Float[np.ndarray, "pairs p"],
    trained: Bool[np.ndarray, " pairs"],
    keys: Sequence[int],
    tables: Sequence[Float[np.ndarray, "p width"]],
    weights: Sequence[np.ndarray] | None = None,
) -> Progress:
    """All measures at one point of training.

    Args:
        logits: on every pair (a, b), at row a·p + b.
        trained: whether a pair was trained on.
        keys: key frequencies, as `key_frequencies` gives them.
        tables: embeddings of the residues, and unembeddings with residues on the first axis.
        weights: all weights, for their sum of squares; the tables if None.

    Raises:
        BadInput: a key frequency outside 1 to (p − 1)/2, or no pair that was, or was not, trained on.
        ShapeMismatch, NotFinite: as for `key_frequencies`.
    """
    p = logits.shape[1]
    _check(logits, (p * p, p), p)
    if trained.shape != (p * p,) or trained.all() or not trained.any():
        raise BadInput(f"{int(trained.sum())} of {trained.size} pairs trained on", f"some of {p * p}")
    wrong = [k for k in keys if not 1 <= k <= p // 2]
    if wrong or not keys:
        raise BadInput(f"key frequencies {list(keys)}", f"from 1 to {p // 2}")
    x = np.asarray(logits, dtype=np.float64)
    codes = np.arange(p * p)
    answers = (codes // p + codes % p) % p
    waves = _waves(codes // p + codes % p, p, sorted(keys)) * (np.sqrt(2.0) / p)  # orthonormal
    key = waves @ (waves.T @ x)
    loss = _loss(x, answers)
    right = x.argmax(axis=1) == answers
    return Progress(
        train_loss=float(loss[trained].mean()),
        test_loss=float(loss[~trained].mean()),
        train_accuracy=float(right[trained].mean()),
        test_accuracy=float(right[~trained].mean()),
        restricted_loss=float(_loss(key + x.mean(axis=0), answers).mean()),
        excluded_loss=float(_loss(x - key, answers)[trained].mean()),
        gini=tuple(gini(component_norms(t)) for t in tables),
        weights=float(sum((np.asarray(w, np.float64) ** 2).sum() for w in weights or tables)),
    )


def component_norms(table: Float[np.ndarray, "p width"]) -> Float[np.ndarray, " p"]:
    """Norm of every Fourier component of a table over its residues: the mean, then cosine and sine of each
    frequency, in an orthonormal basis, so that their squares add up to the table's."""
    p = len(table)
    if p % 2 == 0:
        raise BadInput(f"{p} residues", "an odd number")
    basis = _waves(np.arange(p), p, range(1, p // 2 + 1)) * np.sqrt(2.0 / p)
    basis = np.concatenate([np.full((p, 1), p**-0.5), basis], axis=1)
    return np.asarray(np.linalg.norm(basis.T @ np.asarray(table, np.float64), axis=1))


def gini(sizes: Float[np.ndarray, " n"]) -> float:
    """The Gini coefficient of sizes of 0 or above: mean absolute difference over twice the mean.

    Raises:
        BadInput: a size below zero, or nothing above it.
    """
    if (sizes < 0).any() or not sizes.sum() > 0:
        raise BadInput("sizes below zero, or all zero", "sizes of 0 or above, some of them above")
    n, ordered = len(sizes), np.sort(sizes)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def halfway(steps: Sequence[int], values: Sequence[float]) -> int:
    """When a measure has moved: the first step from which it stays beyond the middle of its first and last value.

    Raises:
        TooLittleData: fewer than two steps.
        BadInput: it ends where it began.
    """
    if len(steps) < 2 or len(steps) != len(values):
        raise TooLittleData(f"{len(values)} values at {len(steps)} steps", "two or more, one for each step")
    first, last = values[0], values[-1]
    if first == last:
        raise BadInput("a measure that ends where it began", "one that moves")
    beyond = (np.asarray(values) - (first + last) / 2) * np.sign(last - first) > 0
    short = np.flatnonzero(~beyond)
    return int(steps[int(short[-1]) + 1 if len(short) else 0])


def _waves(sums: Int[np.ndarray, " n"], p: int, frequencies: Sequence[int]) -> Float[np.ndarray, "n waves"]:
    """cos and sin of 2πk·sum/p, for each k in turn."""
    turns = 2 * np.pi * (np.outer(sums, frequencies) % p) / p
    return np.stack([np.cos(turns), np.sin(turns)], axis=2).reshape(len(sums), -1)


def _loss(logits: Float[np.ndarray, "n p"], answers: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return np.asarray(total - logits[np.arange(len(answers)), answers])


def _check(logits: np.ndarray, shape: tuple[int, int], p: int) -> None:
    if p % 2 == 0 or p < 3:
        raise BadInput(f"modulus {p}", "an odd one from 3")
    if logits.shape != shape:
        raise ShapeMismatch(f"logits of shape {logits.shape}", f"{shape}")
    if not np.isfinite(logits).all():
        raise NotFinite("NaN or infinity in the logits", "finite logits")
