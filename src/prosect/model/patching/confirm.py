"""Chosen cells on rows that did not choose them: the only figure of theirs that is an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from prosect.core.errors import BadInput
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.model.patching.activation import PatchCell, PatchMap
from prosect.model.patching.cells import ALONE, Candidate, Donor, cell_edit, refuse_seen, there
from prosect.model.patching.metrics import Metric, measured_by
from prosect.model.patching.pairs import Alignment, Pairs, Positions
from prosect.model.patching.scores import Cost, RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model
    from prosect.model.patching.attribution import AtpMap


@dataclass(frozen=True, eq=False)
class ReEstimated:
    """Chosen cells measured again.

    Attributes:
        chosen: the cells, with the figure that chose each.
        effects: (cells, rows) on rows not seen before.
        mismatched: the control, or None.
        base, other: (rows,): the metric on both runs.
        cost: of measuring again.
    """

    chosen: tuple[Candidate, ...]
    effects: RowScores = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    cost: Cost

    def table(self) -> tuple[PatchCell, ...]:
        """Estimates, in the order of ``chosen``. Each interval is for its cell alone."""
        gap = self.other.values - self.base.values
        out = []
        for i, cell in enumerate(self.chosen):
            control = Measured(estimate=None, note=ALONE)
            if self.mismatched is not None:
                control = self.mismatched.measured(i)
            share = self.effects.share(i, of=gap)
            out.append(PatchCell(cell.node, cell.position, self.effects.measured(i), share, control))
        return tuple(out)


def re_estimate(
    model: Model,
    found: PatchMap | AtpMap,
    cells: Sequence[Candidate],
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    *,
    positions: Positions | None = None,
    alignment: Alignment | None = None,
    seed: int = 1,
    budget_mb: int | float = 512.0,
) -> ReEstimated:
    """Measure cells that were chosen on one set of pairs on another.

    Args:
        found: the map that they were chosen from, exact or estimated; either way cells are patched exactly.
        cells: such as ``found.top(5)``.
        clean, corrupted: pairs that ``found`` has not seen.
        metric: for these rows.
        positions: for these rows, where the map's were given row by row; its own otherwise.

    Raises:
        TooLittleData: a pair that the map has seen.
        BadInput: a cell that these rows do not have, or no cell.
        Otherwise as `noising`.
    """
    pairs = Pairs.of(model, clean, corrupted, alignment)
    refuse_seen(found.digests, pairs)
    spans = {span.label: span for span in pairs.spans(found.wanted if positions is None else positions)}
    nodes = dict(zip(found.nodes, found.what, strict=True))
    missing = [c for c in cells if c.node not in nodes or c.position not in spans]
    if missing or not cells:
        got = f"cell {missing[0].node} at {missing[0].position}" if missing else "no cells"
        raise BadInput(got, "cells of the map that the new rows have too", "found.top(5)")
    direction = found.direction
    donor = Donor.of(model, pairs, direction, list(dict.fromkeys(nodes[c.node].site for c in cells)))
    strangers = pairs.strangers(Seed(seed)) if found.mismatched is not None else None
    donors = [donor] + ([] if strangers is None else [donor.from_rows(strangers.tolist())])
    lists = [
        [e for e in [cell_edit(nodes[c.node], spans[c.position], pairs, direction, d)] if e is not None]
        for d in donors
        for c in cells
    ]
    swept = model.sweep([[], *lists], pairs.base(direction), metric, budget_mb)
    other = measured_by(model, pairs.donor(direction), metric, budget_mb).numpy()
    of = [spans[c.position] for c in cells]
    effects = np.where(there(of, None), swept[1 : 1 + len(cells)] - swept[0], np.nan)

    def rows(values: np.ndarray) -> RowScores:
        return RowScores(values, pairs.clean.units, Seed(seed).child("rows"))

    mismatched = None
    if strangers is not None:
        mask = there(of, strangers.tolist())
        mismatched = rows(np.where(mask, swept[1 + len(cells) :] - swept[0], np.nan))
    cost = Cost(forward=len(lists) + 3)
    return ReEstimated(tuple(cells), rows(effects), mismatched, rows(swept[0]), rows(other), cost)
