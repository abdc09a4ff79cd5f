"""How far estimates are from exact patching, on a random sample of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from prosect.core.intervals import INTERVAL_DRAWS, Correlation, Mean, Resamples, moments
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.model.patching.cells import Donor, cell_edit
from prosect.model.patching.metrics import Metric
from prosect.model.patching.nodes import Node
from prosect.model.patching.pairs import Direction, Pairs, Span

if TYPE_CHECKING:
    from prosect.model.model import Model

MISSED, NEGLIGIBLE = 0.25, 0.01
"""A cell is missed where its estimate is under this share of its effect, unless the effect is itself under this
share of the largest in the sample."""


@dataclass(frozen=True)
class Accuracy:
    """Estimates against exact effects, cell by cell, both means over rows.

    The sampled cells are the resampling unit: intervals are about the other cells of the map on these rows.

    Attributes:
        cells: how many were sampled, of how many.
        correlation, rank: Pearson's and of ranks.
        error: mean absolute error, in the metric's unit.
        nothing: the control: the same error of estimating zero everywhere.
        mismatched: the control: correlation of estimates made with an unrelated row's values; missing where
            there was none.
        missed: share of cells that matter and whose estimate says that they hardly do.
    """

    cells: tuple[int, int]
    correlation: Measured
    rank: Measured
    error: Measured
    nothing: Measured
    mismatched: Measured
    missed: Measured


def exact_effects(
    model: Model,
    metric: Metric,
    pairs: Pairs,
    direction: Direction,
    donor: Donor,
    cells: Sequence[tuple[Node, Span]],
    budget_mb: int | float,
) -> Float[np.ndarray, "cells rows"]:
    """Metric with each cell patched minus metric without; zero for rows that do not have the cell."""
    edits = [cell_edit(node, span, pairs, direction, donor) for node, span in cells]
    lists = [[] if edit is None else [edit] for edit in edits]
    found = model.sweep([[], *lists], pairs.base(direction), metric, budget_mb)
    return np.asarray(found[1:] - found[0])


def accuracy(
    estimates: Float[np.ndarray, " cells"],
    exact: Float[np.ndarray, " cells"],
    foreign: Float[np.ndarray, " cells"] | None,
    population: int,
    seed: Seed,
) -> Accuracy:
    """Compare estimates of some cells with their exact effects.

    Args:
        estimates, exact: one for each sampled cell.
        foreign: estimates with an unrelated row's values.
        population: cells of the map.
        seed: of the resamples.
    """
    n = len(exact)
    draws = Resamples(n, INTERVAL_DRAWS, seed)
    cell = np.arange(n)

    def related(x: np.ndarray, y: np.ndarray) -> Measured:
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return Measured(estimate=None, n=n, note="one of the two is the same for every cell")
        return draws.measure([moments(x, y, cell, n)], Correlation()).measured

    def mean(x: np.ndarray, high: float = np.inf) -> Measured:
        return draws.measure([np.stack([np.ones(n), x], axis=-1)], Mean(0.0, high)).measured

    size = np.abs(exact)
    counts = size > NEGLIGIBLE * size.max() if n else size > 0
    missed = counts & (np.abs(estimates) < MISSED * size)
    none = Measured(estimate=None, note="no unrelated row")
    return Accuracy(
        (n, population),
        related(estimates, exact),
        related(rankdata(estimates), rankdata(exact)),
        mean(np.abs(estimates - exact)),
        mean(size),
        none if foreign is None else related(foreign, exact),
        mean(missed.astype(float), 1.0),
    )
