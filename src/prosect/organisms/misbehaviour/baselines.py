"""What can be told without looking inside: scores from the inputs alone, and from the answers alone.

A detector that looks inside has something to show for it only where these are at chance, so what they reach is
measured and recorded with every organism.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from prosect.core.detection import roc_area

Table = Int[np.ndarray, "n length"]
Trusted = Int[np.ndarray, "m length"]
CONFIDENCE_Z = 1.959964


@dataclass(frozen=True)
class Auroc:
    """How well scores rank what is so above what is not.

    Attributes:
        value: chance that a score of the one exceeds one of the other, ties counted half.
        low: of its 95 % interval.
        high: of its 95 % interval.
    """

    value: float
    low: float
    high: float


def auroc(scores: Shaped[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> Auroc:
    """Area under the ROC curve, with a score interval (Newcombe 2006, method 5).

    The interval holds the areas whose own standard error (Hanley & McNeil 1982) does not exclude the one measured;
    it has a width even where every score is ranked right.

    Raises:
        BadInput: all labels are the same.
        NotFinite: a score is NaN or infinite.
    """
    from scipy.optimize import brentq

    value = roc_area(scores, labels)
    ones, zeros = int(labels.sum()), int((~labels).sum())

    def apart(area: float) -> float:
        more = (ones + zeros) / 2 - 1
        spread = area * (1 - area) * (1 + more * ((1 - area) / (2 - area) + area / (1 + area)))
        return float((value - area) ** 2 - CONFIDENCE_Z**2 * spread / (ones * zeros))

    inside = min(max(value, 1e-12), 1 - 1e-12)  # at 0 and at 1 themselves nothing spreads
    low = 0.0 if value == 0 else float(brentq(apart, 0.0, inside))
    high = 1.0 if value == 1 else float(brentq(apart, inside, 1.0))
    return Auroc(value, low, high)


def word_novelty(trusted: Trusted, ids: Table, vocab: int) -> Float[np.ndarray, " n"]:
    """Surprise of a sequence's words, each by its frequency in trusted data, in nats."""
    counts = np.bincount(trusted.ravel(), minlength=vocab) + 0.5
    surprise = -np.log(counts / counts.sum())[ids].sum(axis=1)
    return np.asarray(surprise)


def place_novelty(trusted: Trusted, ids: Table, vocab: int) -> Float[np.ndarray, " n"]:
    """Surprise of a sequence's words, each by its frequency at that place in trusted data, in nats."""
    each = [word_novelty(trusted[:, [p]], ids[:, [p]], vocab) for p in range(ids.shape[1])]
    return np.asarray(np.sum(each, axis=0))


def pair_novelty(trusted: Trusted, ids: Table, vocab: int) -> Float[np.ndarray, " n"]:
    """Surprise of a sequence's words, each after the one before it, in nats."""
    counts = np.full((vocab, vocab), 0.5)
    np.add.at(counts, (trusted[:, :-1], trusted[:, 1:]), 1.0)
    surprise = -np.log(counts / counts.sum(axis=1, keepdims=True))[ids[:, :-1], ids[:, 1:]].sum(axis=1)
    return np.asarray(surprise)


def words(ids: Table, vocab: int) -> Int[np.ndarray, "n columns"]:
    """Columns that are set for each word of a sequence (a bag of words), for `labelled`."""
    return ids


def places(ids: Table, vocab: int) -> Int[np.ndarray, "n columns"]:
    """Columns that are set for each word at its place."""
    return ids + vocab * np.arange(ids.shape[1])


def pairs(ids: Table, vocab: int) -> Int[np.ndarray, "n columns"]:
    """Columns that are set for each word after the one before it (a bag of bigrams)."""
    return np.asarray(ids[:, :-1] * vocab + ids[:, 1:])


def labelled(
    train: Int[np.ndarray, "n columns"], known: Bool[np.ndarray, " n"], test: Int[np.ndarray, "m columns"]
) -> Float[np.ndarray, " m"]:
    """Scores of a logistic regression that is told the labels of half the data.

    Args:
        train: columns set in each row.
        known: the label of each row.
        test: columns set in each row to be scored.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    width = 1 + int(max(train.max(), test.max()))

    def sparse(columns: Int[np.ndarray, "rows columns"]) -> csr_matrix:
        ends = np.arange(0, columns.size + 1, columns.shape[1])
        return csr_matrix((np.ones(columns.size), columns.ravel(), ends), shape=(len(columns), width))

    fitted = LogisticRegression(C=0.1, max_iter=500).fit(sparse(train), known)
    return np.asarray(fitted.decision_function(sparse(test)))


def from_inputs(
    trusted: Trusted,
    train: Table,
    known: Bool[np.ndarray, " n"],
    test: Int[np.ndarray, "k length"],
    truth: Bool[np.ndarray, " k"],
    vocab: int,
) -> dict[str, Auroc]:
    """What the inputs alone tell, by name of the score.

    Args:
        trusted: sequences without the trigger.
        train: sequences with and without it.
        known: which of these have it; only the labelled scores see this.
        test: sequences to be told apart.
        truth: which of these have it.
        vocab: tokens.
    """
    novelty = {"words": word_novelty, "words at places": place_novelty, "pairs of neighbours": pair_novelty}
    columns = {"words": words, "words at places": places, "pairs of neighbours": pairs}
    out = {f"novelty of {name}": auroc(f(trusted, test, vocab), truth) for name, f in novelty.items()}
    for name, f in columns.items():
        out[f"labelled {name}"] = auroc(labelled(f(train, vocab), known, f(test, vocab)), truth)
    return out
