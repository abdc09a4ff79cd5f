"""A sum of tables over the tokens of a text: the additive model that a rule over the same text stands beside.

One table for each of the last few tokens and one for the position, fitted together: what each says by itself is added
up (Hastie & Tibshirani 1986, "Generalized additive models"). Where it does as well as a rule that names a context, no
token had to be seen together with another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.contexts import OFFSETS, Columns, Contexts, columns_of
from prosect.describe.executables import parameters_of, reading, tensor_of
from prosect.describe.tables import grouped
from prosect.store.shelf import Shelf

SWEEPS = 6
"""Times that every table is refitted to what the others leave."""


class AdditiveTable:
    """intercept + Σ over how far back of table[token there] + table[position].

    Args:
        intercept: the mean of what was explored.
        tables: one for each of `OFFSETS`, (tokens + 1,), the last place for no token; then one by position.

    Raises:
        BadInput: another number of tables.
    """

    kind = "additive-table"
    version = 1

    def __init__(self, intercept: float, tables: Sequence[Float[np.ndarray, " _"]]) -> None:
        if len(tables) != len(OFFSETS) + 1 or any(t.ndim != 1 or not np.isfinite(t).all() for t in tables):
            raise BadInput(
                f"{len(tables)} tables", f"{len(OFFSETS) + 1}: of finite numbers, one for each cell"
            )
        self.intercept, self.tables = intercept, tuple(tables)

    @classmethod
    def fit(cls, contexts: Contexts, activation: Float[np.ndarray, " _"]) -> AdditiveTable:
        """Backfitting: each table in turn to what is left by the others, its means shrunk as those of `TokenTable`.

        Raises:
            ShapeMismatch: there is not one activation for each explored position.
            NotFinite: one is NaN or infinite.
        """
        y = contexts.checked(activation)
        known = np.append(-1, contexts.named)
        cells = [known[contexts.codes[back]] for back in OFFSETS]
        sizes = [len(contexts.vocabulary) + 1] * len(OFFSETS) + [int(contexts.position.max()) + 1]
        cells = [np.where(c < 0, n - 1, c) for c, n in zip(cells, sizes, strict=False)] + [contexts.position]
        intercept = float(y.mean())
        tables = [np.zeros(n) for n in sizes]
        left = y - intercept
        for _ in range(SWEEPS):
            for i, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
                left = left + tables[i][cell]
                tables[i] = grouped(cell, left, size)
                left = left - tables[i][cell]
        return cls(intercept, tables)

    def _at(self, columns: Columns) -> list[Int[np.ndarray, " n"]]:
        last = [len(t) - 1 for t in self.tables]
        tokens = [columns.token(back) for back in OFFSETS]
        inside = [np.where((c < 0) | (c >= n), n, c) for c, n in zip(tokens, last, strict=False)]
        return [*inside, columns.position]

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> AdditiveTable:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            sizes = [int(n) for n in parameters["sizes"]]
            every = np.asarray(tensor_of(executable, "tables", shelf).numpy(), dtype=np.float64)
            if sum(sizes) != every.size:
                raise BadInput(f"tables of {every.size} cells", f"{sum(sizes)}")
            return cls(float(parameters["intercept"]), np.split(every, np.cumsum(sizes)[:-1]))

    def executable(self, shelf: Shelf) -> Executable:
        """As stored: the tables on the shelf, one after the other."""
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={"intercept": self.intercept, "sizes": [len(t) for t in self.tables]},
            tensors={"tables": shelf.put(torch.from_numpy(np.concatenate(self.tables)))},
        )

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation at scored positions, in the order of ``batch.flat``.

        Raises:
            BadInput: the batch holds no tokens.
        """
        columns = columns_of(batch, None)
        out = np.full(len(columns), self.intercept)
        for table, at in zip(self.tables, self._at(columns), strict=True):
            out += np.where(at < len(table), table[np.minimum(at, len(table) - 1)], 0.0)
        return out
