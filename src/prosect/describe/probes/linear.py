"""A line through activations, of one site or of several side by side, fitted by logistic regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.logistic import logistic

RIDGES = (0.003, 0.03, 0.3)
"""Penalties for each row, on inputs scaled to unit variance."""
INNER = 0.3
"""Share of the units to fit that a penalty is chosen on."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Σ over sites of weightsₛ · xₛ + bias: above 0 means that the concept is there.

    Attributes:
        sites: in the order of their weights.
        weights: of all sites, one after the other, (total width,), for activations as they are.
        bias: in the same units.
        inner: accuracy on the units that its penalty was chosen on; too large by that choice.
    """

    sites: tuple[str, ...]
    weights: Float[Tensor, " width"]
    bias: float
    inner: float = float("nan")

    def says(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Bool[np.ndarray, " n"]:
        """Whether it calls the concept there, at each row.

        Raises:
            ShapeMismatch: sites of other widths than it was fitted to.
        """
        beside = side_by_side(x, self.sites)
        if beside.shape[1] != len(self.weights):
            raise ShapeMismatch(
                f"{beside.shape[1]} numbers from {', '.join(self.sites)}", f"{len(self.weights)}"
            )
        scores = beside.double() @ self.weights.double().to(beside.device) + self.bias
        return np.asarray((scores > 0).cpu().numpy())


def side_by_side(x: Mapping[str, Float[Tensor, "n _"]], sites: Sequence[str]) -> Float[Tensor, "n width"]:
    """The rows of several sites as one."""
    return torch.cat([x[s].reshape(len(x[s]), -1) for s in sites], dim=1)


def fit_probe(
    x: Mapping[str, Float[Tensor, "n _"]],
    y: Bool[np.ndarray, " _"],
    units: Int[np.ndarray, " _"],
    sites: Sequence[str],
    seed: Seed,
) -> LinearProbe:
    """Logistic regression with the penalty of `RIDGES` that does best on units that it was not fitted to.

    Args:
        x: activations by site.
        y: where the concept is.
        units: the independent unit of each row.
        sites: which of them to read, side by side.
        seed: of the units that the penalty is chosen on.

    Raises:
        ShapeMismatch: not as many labels and units as rows.
        TooLittleData: fewer than four units, or a class that is missing from the units to fit or to choose on.
    """
    beside = side_by_side(x, sites).double().cpu()
    if not len(beside) == len(y) == len(units):
        raise ShapeMismatch(f"{len(beside)} rows, {len(y)} labels, {len(units)} units", "as many of each")
    known = np.unique(units)
    if len(known) < 4:
        raise TooLittleData(f"{len(known)} independent units to fit a probe to", "4 or more", "more text")
    chosen = seed.child("inner").numpy().permutation(known)[: max(1, round(INNER * len(known)))]
    inner = np.isin(units, chosen)
    for part, said in ((~inner, "to fit"), (inner, "to choose a penalty on")):
        if not y[part].any() or y[part].all():
            there = "nowhere" if not y[part].any() else "everywhere"
            raise TooLittleData(
                f"a concept that is {there} in the units {said}", "one that comes and goes", "more text"
            )
    truth = torch.from_numpy(np.asarray(y))
    scored = []
    for ridge in RIDGES:
        weights, bias = _fitted(beside[~inner], truth[~inner], ridge)
        right = (beside[inner] @ weights + bias > 0) == truth[inner]
        scored.append(float(right.double().mean()))
    best = int(np.argmax(scored))
    weights, bias = _fitted(beside, truth, RIDGES[best])
    return LinearProbe(tuple(sites), weights, bias, scored[best])


def _fitted(x: Float[Tensor, "n width"], y: Bool[Tensor, " n"], ridge: float) -> tuple[Tensor, float]:
    """Weights and bias for activations as they are; they were fitted to standardised ones."""
    mean, scale = x.mean(dim=0), x.std(dim=0)
    scale = torch.where(scale > 1e-9 * scale.max().clamp(min=1e-300), scale, torch.inf)
    weights, bias = logistic((x - mean) / scale, y, ridge * len(x))
    plain = weights / scale
    return plain, bias - float(plain @ mean)
