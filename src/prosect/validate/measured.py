"""Effects that are measured as they stand: one number for each unseen row, beside the same number of every rival.

What is measured is the claim's own code: a patch, a dose of steering, a reading. Its rivals are the same
measurement with what the claim is about taken away, such as values from an unrelated run or a random
direction. One pass over the fold serves all claims of a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, NotFinite
from prosect.core.intervals import Mean
from prosect.core.records import Evidence, Executable
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.model import Model
from prosect.validate.subject import STATISTICAL, Captured, Subject, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Item, compare

KIND = "measured-effect"


@runtime_checkable
class Measurement(Protocol):
    """A description that can be measured row by row."""

    @classmethod
    def measure(
        cls, wanted: Sequence[Any], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """Measure some descriptions of this kind on the same rows, sharing passes; NaN where one does not apply."""


class MeasuredEffect:
    """Measurements and those of their rivals, for every plan of a family."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self._number: dict[str, int] = {}
        self._kinds: dict[type, list[int]] = {}
        self._made: list[Any] = []
        self.plan: list[tuple[int, list[list[int]]]] = []
        for item in self.items:
            effect = item.hypothesis.description.effect
            if effect is None:
                raise BadInput(
                    f"hypothesis {item.hypothesis.id} without an effect side", "something to measure"
                )
            rivals = [[self._quantity(e) for e in r.descriptions] for r in item.plan.rivals]
            self.plan.append((self._quantity(effect), rivals))
        self.sums = UnitSums(self.units, len(self._made), 2)

    def _quantity(self, executable: Executable) -> int:
        key = digest(executable)
        if key not in self._number:
            made = runnable(executable, self.subject.shelf)
            if not isinstance(made, Measurement):
                raise BadInput(
                    f"a description of kind {executable.kind!r}", "one that can be measured row by row"
                )
            self._number[key] = len(self._made)
            self._kinds.setdefault(type(made), []).append(len(self._made))
            self._made.append(made)
        return self._number[key]

    def sites(self) -> tuple[str, ...]:
        """Nothing: a measurement runs what it needs."""
        return ()

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Measure everything on this batch."""
        values = np.full((len(self._made), len(batch)), np.nan)
        for kind, places in self._kinds.items():
            wanted = [self._made[i] for i in places]
            values[places] = kind.measure(wanted, self.subject.model, batch, self.subject.source)  # type: ignore[attr-defined]
        if np.isinf(values).any():
            raise NotFinite("infinity from a measurement", "finite numbers, or NaN where one does not apply")
        if self.subject.null == STATISTICAL:  # which measurement is whose is forgotten, unit by unit
            for unit in np.unique(batch.units).tolist():
                at = np.flatnonzero(batch.units == unit)
                order = self.subject.seed.child("null", "measured", unit).numpy().permutation(len(values))
                values[:, at] = values[order][:, at]
        here = np.isfinite(values)
        for i, row in enumerate(values):
            self.sums.add_means(i, batch.units, here[i].astype(float), np.where(here[i], row, 0.0))

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item; only units on which its own measurement applies count."""
        out = []
        for item, (own, rivals) in zip(self.items, self.plan, strict=True):
            pairs = [
                (rival, [self.sums.total[i] for i in members])
                for rival, members in zip(item.plan.rivals, rivals, strict=True)
            ]
            out.append(compare(item, self.sums.total[own], pairs, Mean(), draws))
        return out
