"""Where inputs come from: parts of data that can be gone through again and again in the same order.

Part names: ``explore`` (and its two disjoint halves ``explore.first`` and ``explore.second``),
``validate.0``, ``validate.1`` ... (folds), ``sealed``, and ``shift`` where a behaviour has one. Units are
numbered from 0 within each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from prosect.core.errors import UnknownName
from prosect.data.batch import Batch, Row


@runtime_checkable
class Source(Protocol):
    """Inputs cut into parts."""

    @property
    def digest(self) -> str:
        """Of everything that determines the inputs."""

    @property
    def units(self) -> Mapping[str, int]:
        """Number of independent units in each part."""

    @property
    def unit(self) -> str:
        """What one unit is, in words."""

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Go through ``part`` from its beginning, the same batches in the same order each time.

        Raises:
            UnknownName: there is no such part.
        """


@dataclass(frozen=True)
class TableSource:
    """Inputs made by a function for each part: every row is its own independent unit.

    Args:
        make: part → tensors by keyword of the model's forward, first axis rows; pure.
        units: rows of each part.
        digest: of what determines the inputs.
        unit: what one row is, in words.
        name: row number → name of the input, for people.
    """

    make: Callable[[str], Mapping[str, Tensor]]
    units: Mapping[str, int]
    digest: str
    unit: str = "independent input"
    name: Callable[[str, int], str] = field(default=lambda part, i: f"{part}[{i}]")

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Rows of ``part`` in order."""
        if part not in self.units:
            raise UnknownName("part", part, self.units)
        tensors = self.make(part)
        for start in range(0, self.units[part], rows):
            stop = min(start + rows, self.units[part])
            ids = tuple(Row(unit=i, document=self.name(part, i)) for i in range(start, stop))
            yield Batch({k: t[start:stop] for k, t in tensors.items()}, None, ids)
