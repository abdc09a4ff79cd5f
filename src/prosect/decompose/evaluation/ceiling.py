"""What supervision can do: the probe ceiling that stands beside every dictionary's recovery.

If a probe that is told where a feature is cannot find it again, no dictionary can be blamed for missing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.detection import LabelledStream
from prosect.decompose.evaluation.logistic import best_threshold, logistic, marks


@dataclass(frozen=True)
class Ceiling:
    """How well probes tell where features are.

    Attributes:
        features: which were probed.
        precision, recall, f1: of each, on odd rows.
    """

    features: Int[Tensor, " m"]
    precision: Float[Tensor, " m"]
    recall: Float[Tensor, " m"]
    f1: Float[Tensor, " m"]


def ceiling(
    stream: LabelledStream,
    site: str,
    features: Sequence[int],
    kind: Literal["logistic", "least squares"] = "logistic",
    ridge: float = 1.0,
) -> Ceiling:
    """Fit a linear probe for each feature on even rows, choose its threshold there, and score it on odd ones.

    Features that are absent from either half are left out.

    Args:
        stream: held in memory; 20,000 rows are plenty.
        site: what probes read.
        features: which to probe; a random sample of some hundred will do.
        kind: logistic regression costs several times rows × width² for each feature, least squares only once.
        ridge: penalty, on activations scaled to unit variance.

    Raises:
        TooLittleData: no feature is in both halves.
    """
    if kind not in ("logistic", "least squares"):
        raise BadInput(f"probes of kind {kind!r}", "'logistic' or 'least squares'")
    rows, labels = gather(stream, site, features)
    x = rows.double()
    x = (x - x[::2].mean(dim=0)) / x[::2].std(dim=0).clamp(min=1e-12)
    train, test = x[::2], x[1::2]
    y_train, y_test = labels[::2], labels[1::2]
    seen = y_train.any(dim=0) & y_test.any(dim=0) & ~y_train.all(dim=0)
    kept = seen.nonzero().flatten()
    if not len(kept):
        raise TooLittleData(f"no feature in both halves of {len(x):,} rows", "one in each", "more rows")
    if kind == "least squares":
        gram = train.T @ train + ridge * torch.eye(x.shape[1], dtype=torch.float64)
        target = y_train[:, kept].double()
        weights = torch.linalg.solve(gram, train.T @ (target - target.mean(dim=0)))
    else:
        weights = torch.stack([logistic(train, y_train[:, j], ridge)[0] for j in kept.tolist()], dim=1)
    found = []
    for column, j in enumerate(kept.tolist()):
        threshold = best_threshold(train @ weights[:, column], y_train[:, j])
        found.append(marks(test @ weights[:, column] > threshold, y_test[:, j]))
    precision, recall, f1 = torch.tensor(found, dtype=torch.float64).T
    return Ceiling(torch.tensor(list(features))[kept], precision, recall, f1)


def gather(
    stream: LabelledStream, site: str, features: Sequence[int]
) -> tuple[Float[Tensor, "n width"], Bool[Tensor, "n m"]]:
    """All rows of a labelled stream, in memory, and where some features are present in them."""
    rows, labels = [], []
    for block, indices, strengths in stream.labelled():
        rows.append(block[site])
        labels.append(Codes(indices, strengths, stream.features).columns(features) > 0)
    return torch.cat(rows), torch.cat(labels)
