"""Is a concept there, but not along a direction? A probe with hidden units against a linear one.

What a dictionary, a probe or a steering vector can find is linear. Where hidden units read a concept much better, that
is the wrong place to look: XOR of two directions, an arc of a circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.logistic import logistic

UNITS = 256


@dataclass(frozen=True)
class Readout:
    """Accuracy on odd rows of probes fitted on even ones.

    Attributes:
        linear: of logistic regression on the activations.
        hidden: of logistic regression on the activations and on random hidden units beside them.
        gap: hidden minus linear, with an interval over units.
        chance: of always saying what is more frequent.
        right: on which odd rows each is right, linear first.
    """

    linear: float
    hidden: float
    gap: Measured
    chance: float
    right: Bool[Tensor, "2 odd"]


def readout(
    x: Float[Tensor, "n width"],
    y: Bool[Tensor, " _"],
    seed: Seed,
    units: np.ndarray | None = None,
    hidden: int = UNITS,
    ridge: float = 1.0,
    view: Float[Tensor, "n seen"] | None = None,
) -> Readout:
    """Probe one concept with and without hidden units.

    The hidden units are relu(w · x + b) with w and b drawn and not trained (Rahimi & Recht 2007, "Random features for
    large-scale kernel machines"), so that both probes are convex and repeat to the bit.

    Args:
        x: activations.
        y: where the concept is present; somewhere and somewhere not in both halves.
        seed: of the hidden units and of the resampling.
        units: the independent unit of each row, such as its document; None where every row is one.
        hidden: how many hidden units.
        ridge: penalty of both probes, on inputs scaled to unit variance.
        view: what the hidden units see; None for all of ``x``. Of few dimensions, they see more in them.

    Raises:
        ShapeMismatch: rows, labels and units differ in number.
        BadInput: a half has a single class.
    """
    lengths = {len(y), *(len(other) for other in (units, view) if other is not None)}
    if lengths != {len(x)}:
        raise ShapeMismatch(f"{len(x)} rows and {len(y)} labels", "as many labels, and units, as rows")
    for half in (y[::2], y[1::2]):
        if not bool(half.any()) or bool(half.all()):
            raise BadInput("a concept that is everywhere or nowhere in one half", "one that comes and goes")
    plain = _scaled(x.double())
    generator = seed.child("hidden").torch()
    seen = plain if view is None else _scaled(view.double())
    weights = torch.randn((seen.shape[1], hidden), generator=generator, dtype=torch.float64)
    bias = torch.randn(hidden, generator=generator, dtype=torch.float64)
    wide = torch.cat([plain, _scaled(torch.relu(seen @ weights / seen.shape[1] ** 0.5 + bias))], dim=1)
    linear, beside = (_right(features, y, ridge) for features in (plain, wide))
    unit = (
        np.arange(len(linear))
        if units is None
        else np.unique(np.asarray(units)[1::2], return_inverse=True)[1]
    )
    difference = (beside.double() - linear.double()).numpy()
    sums = np.stack([np.bincount(unit), np.bincount(unit, weights=difference)], axis=1).astype(float)
    gap = (
        Resamples(len(sums), INTERVAL_DRAWS, seed.child("resamples"))
        .measure([sums], Mean(-1.0, 1.0))
        .measured
    )
    share = float(y[1::2].double().mean())
    right = torch.stack([linear, beside])
    means = right.double().mean(dim=1).tolist()
    return Readout(means[0], means[1], gap, max(share, 1.0 - share), right)


def _scaled(x: Tensor) -> Tensor:
    """By mean and spread of the even rows."""
    scaled: Tensor = (x - x[::2].mean(dim=0)) / x[::2].std(dim=0).clamp(min=1e-12)
    return scaled


def _right(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Which odd rows a probe fitted on even ones gets right."""
    weights, intercept = logistic(x[::2], y[::2], ridge)
    return (x[1::2] @ weights + intercept > 0) == y[1::2]
