"""What path patching and mediation have in common: one set of positions, a donor, and an unrelated one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.model.patching.cells import Donor
from prosect.model.patching.edges import donors, last_stream, where
from prosect.model.patching.metrics import Metric
from prosect.model.patching.pairs import Alignment, Direction, Pairs, Positions
from prosect.model.patching.scores import RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model


@dataclass(frozen=True, eq=False)
class Setting:
    """Pairs, what is patched in them and where, and rows to take foreign values from."""

    model: Model
    metric: Metric
    pairs: Pairs
    direction: Direction
    at: Sequence[Sequence[int]] | None
    strangers: list[int] | None
    seed: int
    budget_mb: int | float

    @classmethod
    def of(
        cls,
        model: Model,
        clean: Inputs,
        corrupted: Inputs,
        metric: Metric,
        direction: Direction,
        positions: Positions,
        alignment: Alignment | None,
        control: bool,
        seed: int,
        budget_mb: int | float,
    ) -> Setting:
        last_stream(model)
        pairs = Pairs.of(model, clean, corrupted, alignment)
        spans = pairs.spans(positions)
        if len(spans) != 1:
            raise BadInput(f"{len(spans)} sets of positions", "one", 'positions="all", or {"name": [...]}')
        found = pairs.strangers(Seed(seed)) if control else None
        if found is not None and not np.array_equal(pairs.clean.lengths, pairs.clean.lengths[found]):
            found = None  # a row of another length has no value for some positions
        at = where(spans[0], pairs, direction)
        strangers = None if found is None else found.tolist()
        return cls(model, metric, pairs, direction, at, strangers, seed, budget_mb)

    @property
    def base(self) -> Batch:
        return self.pairs.base(self.direction)

    def donors(self, sites: Sequence[str]) -> list[Donor]:
        return donors(self.model, self.pairs, self.direction, sites, self.strangers)

    def sweep(self, lists: Sequence[Sequence[Edit]]) -> np.ndarray:
        """Metric under each list minus metric without, (lists, rows)."""
        found = self.model.sweep([[], *lists], self.base, self.metric, self.budget_mb)
        return np.asarray(found[1:] - found[0])

    def rows(self, values: np.ndarray) -> RowScores:
        return RowScores(values, self.pairs.clean.units, Seed(self.seed).child("rows"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided."""
        if self.strangers is not None:
            return ()
        return ("no control: no unrelated row of the same length, or control=False",)
