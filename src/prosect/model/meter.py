"""What has gone through a model, counted where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Meter:
    """Computing so far, in whole passes of one row; attention itself is left out, as it is of what parts cost.

    Attributes:
        passes: of the module, whole or in part.
        rows: what they computed: a pass that ends at the middle block, or a sweep that computes half of the
            positions, counts as half a row for each of its rows.
        backward: rows of passes that kept their graph, for gradients.
    """

    passes: int = 0
    rows: int | float = 0
    backward: int | float = 0

    def add(self, rows: int | float, backward: int | float = 0) -> None:
        """Count one pass."""
        self.passes += 1
        self.rows += rows
        self.backward += backward

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave uncounted what runs inside: proofs that are made once, whenever they are first needed."""
        before = self.passes, self.rows, self.backward
        try:
            yield
        finally:
            self.passes, self.rows, self.backward = before
