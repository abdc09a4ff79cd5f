"""Telling some rows from others: how far each lies from trusted rows, and how well any score of it ranks them.

Both are scikit-learn's. What is asked on the bench and what is recorded of organisms go through here, so the numbers
of the one are those of the other.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.covariance import ShrunkCovariance
from sklearn.metrics import roc_auc_score

from prosect.core.errors import BadInput, NotFinite, TooLittleData


def roc_area(score: Shaped[np.ndarray, " n"], label: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: chance that a labelled row is scored above one that is not, ties counted half.

    Args:
        score: of each row; only their order counts.
        label: which rows should be above the others.

    Raises:
        BadInput: all labels are the same.
        NotFinite: a score is NaN or infinite.
    """
    ones, zeros = int(label.sum()), int((~label).sum())
    if not ones or not zeros:
        raise BadInput(f"{ones} labels that are true, {zeros} that are not", "some of both")
    if not np.isfinite(score).all():
        raise NotFinite("NaN or infinity in scores", "finite numbers")
    return float(roc_auc_score(label, score))


def distances(
    trusted: Float[np.ndarray, "n width"], rows: Float[np.ndarray, "m width"], shrinkage: float
) -> Float[np.ndarray, " m"]:
    """Squared Mahalanobis distance of rows from trusted ones (Lee et al. 2018).

    Args:
        trusted: what to be near.
        rows: what is measured.
        shrinkage: in [0, 1]: how far the covariance is moved towards a multiple of the identity with the same trace, so
            that directions which trusted rows do not use have a length too.

    Raises:
        TooLittleData: fewer than two trusted rows, or all of them are the same.
        NotFinite: NaN or infinity in either.
    """
    if len(trusted) < 2 or not np.ptp(trusted, axis=0).any():
        raise TooLittleData(f"{len(trusted)} trusted rows without a difference", "rows that differ")
    if not (np.isfinite(trusted).all() and np.isfinite(rows).all()):
        raise NotFinite("NaN or infinity in rows", "finite numbers")
    fitted = ShrunkCovariance(shrinkage=shrinkage).fit(trusted)
    return np.asarray(fitted.mahalanobis(rows))
