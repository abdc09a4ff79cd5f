"""A map held against what patching its features does: the check that a map made to deceive cannot pass.

A map can be trained to show anything while the outputs stay as they were (Heo, Joo & Moon 2019, "Fooling
neural network interpretations via adversarial model manipulation"; Dombrowski et al. 2019, "Explanations can
be manipulated and geometry is to blame"). What a network does when a feature is taken from another row of the
data cannot be changed without changing its outputs there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.attribution.explicand import Cost, Explicand
from prosect.describe.attribution.ranks import over_rows, spearman
from prosect.describe.attribution.reference import reference
from prosect.describe.attribution.replacing import POINTS
from prosect.describe.attribution.result import Attribution
from prosect.model import Model
from prosect.model.inputs import Inputs
from prosect.model.sweep import Metric

LIMIT = 0.5
"""A convention, halfway between a map that orders features as patching does and one that knows nothing."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How a map's order of features agrees with that of exact patch effects.

    Attributes:
        verdict: agrees if the interval of ``rank`` lies above zero; disagrees if it does not and lies below
            one half, or if it lies below zero; inconclusive otherwise.
        rank: Spearman's correlation over the sampled features of each row, of absolute values with root mean
            square patch effects; mean over rows with its interval over independent units.
        shuffled: control: the same with the map's values permuted over the sampled features.
        top: share of rows in which the largest value belongs to the feature with the largest effect.
        chance: control for ``top``: one over the number of features sampled in a row.
        effects: (rows, features): root mean square effect on the metric; NaN where it was not sampled.
        donors: patches for each feature.
        cost: rows that went through the model.
    """

    verdict: Literal["agrees", "disagrees", "inconclusive"]
    rank: Measured
    shuffled: Measured
    top: Measured
    chance: float
    effects: Float[np.ndarray, "rows features"]
    donors: int
    cost: Cost

    @property
    def disagreement(self) -> bool:
        """Whether the map points elsewhere than patching does."""
        return self.verdict == "disagrees"


def against_patching(
    attribution: Attribution,
    model: Model,
    batch: Inputs,
    metric: Metric,
    *,
    donors: Sequence[int] | Batch | None = None,
    each: int = 8,
    features: int = 32,
    rows: int = 64,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Agreement:
    """Patch features of a sample from other rows of the data and compare with the map.

    Args:
        attribution: the map.
        model, batch, metric: what it was made on.
        donors: where patches come from: a batch of rows of the same shape; by default the batch itself.
        each: patches for each feature, from donors drawn at random.
        features: at most so many of a row, drawn at random.
        rows: at most so many, drawn at random.
        seed: of the draws.
        budget_mb: memory that one pass may take, as estimated.

    Raises:
        ShapeMismatch: the batch is not the one that the map was made on.
        TooLittleData: no other row to take a patch from, or fewer than three features in every row.
    """
    given = model.batch(batch)
    if len(given) != len(attribution.values):
        raise ShapeMismatch(f"{len(given)} rows", f"{len(attribution.values)}, as the map has")
    if min(each, features, rows) < 1:
        raise BadInput(f"each={each}, features={features}, rows={rows}", "at least 1 of each")
    cost = Cost()
    present = torch.from_numpy(attribution.present)
    explicand = Explicand(model, given, metric, attribution.features, present, budget_mb, cost)
    root = Seed(seed).child("patching")
    source = explicand.x
    if isinstance(donors, Batch):
        source = reference(explicand, background=donors).points
    elif donors is not None:
        source = explicand.x[list(donors)]
    if len(source) < 2:
        raise TooLittleData(f"{len(source)} rows to take patches from", "at least 2", "donors=")
    rng = root.child("rows").numpy()
    several = np.flatnonzero(attribution.present.sum(axis=1) >= 3)
    if len(several) == 0:
        raise TooLittleData("rows of fewer than three features", "at least three in some row")
    chosen = np.sort(rng.permutation(several)[:rows])
    sampled = np.zeros((len(chosen), attribution.values.shape[1]), dtype=bool)
    for i, row in enumerate(chosen):
        there = np.flatnonzero(attribution.present[row])
        sampled[i, rng.permutation(there)[:features]] = True
    effects = _effects(explicand, source, chosen, sampled, each, donors is None, root)
    map_ = np.abs(attribution.values[chosen])
    shuffled = map_.copy()
    for i in range(len(chosen)):
        shuffled[i, sampled[i]] = root.child("shuffled", i).numpy().permutation(map_[i, sampled[i]])
    units, measured = given.units[chosen], np.where(sampled, effects, 0.0)
    interval = root.child("interval")
    rank = over_rows(spearman(map_, measured, sampled), units, interval, -1.0, 1.0)
    null = over_rows(spearman(shuffled, measured, sampled), units, interval, -1.0, 1.0)
    top = over_rows(_same_top(map_, measured, sampled), units, interval, 0.0, 1.0)
    out = np.full(attribution.values.shape, np.nan)
    out[chosen] = np.where(sampled, effects, np.nan)
    return Agreement(
        _judged(rank), rank, null, top, float((1.0 / sampled.sum(axis=1)).mean()), out, each, cost
    )


def _effects(
    explicand: Explicand,
    source: torch.Tensor,
    rows: np.ndarray,
    sampled: Bool[np.ndarray, "rows features"],
    each: int,
    own: bool,
    seed: Seed,
) -> Float[np.ndarray, "rows features"]:
    """Root mean square of f(x with a feature from a donor) − f(x)."""
    at, feature = sampled.nonzero()
    here = explicand.rows(rows.tolist()).itself().numpy()
    out = np.zeros(sampled.shape)
    rng = seed.child("donors").numpy()
    most = max(1, POINTS // (each * max(1, source[0].numel())))
    for start in range(0, len(at), most):
        part, which = at[start : start + most], feature[start : start + most]
        index = np.repeat(rows[part], each)
        drawn = rng.integers(len(source) - own, size=len(index))
        if own:  # never a row's own value
            drawn += drawn >= index
        keep = torch.ones(len(index), explicand.features.count, dtype=torch.bool)
        keep[torch.arange(len(index)), torch.from_numpy(np.repeat(which, each))] = False
        places = torch.from_numpy(index)
        device = explicand.device
        points = explicand.mix(
            keep, explicand.x[places.to(device)], source[torch.from_numpy(drawn).to(device)]
        )
        got = explicand.at(points, places).numpy().reshape(-1, each)
        out[part, which] = np.sqrt(np.square(got - here[part][:, None]).mean(axis=1))
    return out


def _same_top(
    a: Float[np.ndarray, "rows features"], b: Float[np.ndarray, "rows features"], at: np.ndarray
) -> Float[np.ndarray, " rows"]:
    """1 where one feature is the largest in both, among those sampled; 0 where not."""
    first, second = (np.where(at, m, -1.0).argmax(axis=1) for m in (a, b))
    return np.asarray((first == second).astype(float))


def _judged(rank: Measured) -> Literal["agrees", "disagrees", "inconclusive"]:
    if rank.low is None or rank.high is None:
        return "inconclusive"
    if rank.low > 0:
        return "agrees"
    return "disagrees" if rank.high < LIMIT else "inconclusive"
