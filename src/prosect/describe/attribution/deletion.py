"""Replacing features in the order of a map: a map that knows what counts makes the metric fall early.

Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned"; Petsiuk, Das &
Saenko 2018, "RISE", section 4.3. The area under the curve means nothing by itself: it is held against random
orders of the same features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Resamples, Term
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.attribution.explicand import Cost, Explicand
from prosect.describe.attribution.reference import Baseline, reference
from prosect.describe.attribution.replacing import without
from prosect.describe.attribution.result import Attribution
from prosect.model import Model
from prosect.model.inputs import Inputs
from prosect.model.sweep import Metric


@dataclass(frozen=True, eq=False)
class Deletion:
    """Areas under the curve of the metric as features are replaced, the largest values first.

    Attributes:
        area: mean over rows of the mean over shares of f(x with that share replaced); lower is better for a
            map whose positive values raise the metric.
        random: control: the same for random orders of the same features.
        difference: area minus random, paired by row.
        insertion: the mirror image: everything replaced but the largest values; higher is better.
        insertion_difference: insertion minus random, paired.
        shares: the shares of features that were replaced.
        curve: mean metric at each share, and under random orders.
        orders: random orders for each row.
        cost: rows that went through the model.
    """

    area: Measured
    random: Measured
    difference: Measured
    insertion: Measured
    insertion_difference: Measured
    shares: tuple[float, ...]
    curve: Float[np.ndarray, "2 shares"]
    orders: int
    cost: Cost


def deletion(
    attribution: Attribution,
    model: Model,
    batch: Inputs,
    metric: Metric,
    *,
    baseline: Baseline | None = None,
    background: Tensor | Batch | None = None,
    shares: int = 10,
    orders: int = 3,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Deletion:
    """Delete and insert features in the order of the map, and at random.

    Args:
        attribution: the map; features go by signed value, the largest first.
        model, batch, metric: what it was made on.
        baseline, background: what features are replaced by; see `reference.reference`.
        shares: points of the curve, evenly spaced from the first features to all of them.
        orders: random orders for each row.
        seed: of these.
        budget_mb: memory that one pass may take, as estimated.

    Raises:
        ShapeMismatch: the batch is not the one that the map was made on.
        BadInput: no shares or orders.
    """
    given: Batch = model.batch(batch)
    if len(given) != len(attribution.values):
        raise ShapeMismatch(f"{len(given)} rows", f"{len(attribution.values)}, as the map has")
    if min(shares, orders) < 1:
        raise BadInput(f"{shares} shares, {orders} orders", "at least 1 of each")
    present = torch.from_numpy(attribution.present)
    explicand = Explicand(model, given, metric, attribution.features, present, budget_mb, Cost())
    used = reference(explicand, baseline, background)
    root = Seed(seed).child("deletion")
    steps = tuple(float(s) for s in np.arange(1, shares + 1) / shares)
    here = attribution.present

    def curve(order: Float[np.ndarray, "rows features"], insert: bool) -> Float[np.ndarray, "rows shares"]:
        """f with the features of the highest ``order`` replaced, or all the others."""
        rank = np.where(here, order, -np.inf).argsort(axis=1, kind="stable")[:, ::-1].argsort(axis=1)
        many = here.sum(axis=1, keepdims=True)
        out = []
        for share in steps:
            first = rank < np.round(share * many)
            rows = np.arange(len(given))
            out.append(without(explicand, used, rows, ~first if insert else first))
        return np.stack(out, axis=1)

    deleted, inserted = curve(attribution.values, False), curve(attribution.values, True)
    noise = [root.child("order", i).numpy().random(attribution.values.shape) for i in range(orders)]
    at_random = np.mean([curve(order, False) for order in noise], axis=0)
    random_in = np.mean([curve(order, True) for order in noise], axis=0)
    unit, at = np.unique(given.units, return_inverse=True)

    def term(values: Float[np.ndarray, "rows shares"]) -> Term:
        columns = (np.ones(len(values)), values.mean(axis=1))
        return Term([np.stack([np.bincount(at, w, minlength=len(unit)) for w in columns], axis=1)])

    draws = Resamples(len(unit), INTERVAL_DRAWS, root.child("interval"))
    terms = [term(v) for v in (deleted, at_random, inserted, random_in)]
    wanted = [Contrast(0), Contrast(1), Contrast(0, 1), Contrast(2), Contrast(2, 3)]
    area, random, difference, insertion, gain = (r.measured for r in draws.contrasts(terms, wanted, Mean()))
    means = np.stack([deleted.mean(axis=0), at_random.mean(axis=0)])
    return Deletion(area, random, difference, insertion, gain, steps, means, orders, explicand.cost)
