"""Which positions of the output a metric looks at: what no one reads need not be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.data.batch import Batch

Positions = int | Sequence[int] | Sequence[Sequence[int]]
"""Real positions, negatives from the end of each row: one set for all rows, or one list for each row."""


@dataclass(frozen=True)
class Reads:
    """The columns of a batch that a metric reads.

    Attributes:
        columns: of each row, in the order asked for; None where everything is read.
    """

    columns: Int[np.ndarray, "rows reads"] | None

    @classmethod
    def of(cls, positions: Positions | None, batch: Batch) -> Reads:
        """Find the columns of real positions.

        Raises:
            BadInput: a position that is not there, none at all, rows with different numbers of them.
            Unsupported: inputs without positions.
        """
        if positions is None:
            return cls(None)
        if batch.mask is None:
            raise Unsupported(
                "reads of inputs without positions", "token ids", "reads=None: all of the output"
            )
        sets = _sets(positions, len(batch))
        counts = sorted({len(s) for s in sets})
        if counts[0] == 0 or len(counts) > 1:
            raise BadInput(
                f"{counts} positions read in different rows", "the same number, at least 1, in each"
            )
        mask = batch.mask.cpu().numpy()
        columns = np.empty((len(batch), counts[0]), dtype=np.int64)
        for row, chosen in enumerate(sets):
            real = mask[row].nonzero()[0]
            for p in chosen:
                if not -len(real) <= p < len(real):
                    raise BadInput(
                        f"a read of position {p}",
                        f"at most {len(real) - 1} in row {row}, which has {len(real)} real positions",
                    )
            columns[row] = real[list(chosen)]
        return cls(columns)

    def taken(self, output: Shaped[Tensor, "rows positions ..."], rows: Sequence[int]) -> Tensor:
        """The read columns of an output of all columns, for these rows of the batch: (rows, reads, ...)."""
        if self.columns is None:
            return output
        at = torch.from_numpy(self.columns[list(rows)]).to(output.device)
        return output[torch.arange(len(at), device=output.device)[:, None], at]

    def of_rows(self, rows: Sequence[int]) -> Reads:
        """The same for some of the rows."""
        return Reads(None if self.columns is None else self.columns[list(rows)])


def _sets(positions: Positions, rows: int) -> list[list[int]]:
    if isinstance(positions, int):
        return [[positions]] * rows
    lists = [list(part) for part in positions if isinstance(part, Sequence)]
    if not lists:
        return [[int(p) for p in positions]] * rows  # type: ignore[arg-type]
    if len(lists) != len(positions) or len(lists) != rows:
        raise BadInput(
            f"{len(positions)} sets of positions to read", f"one for all rows, or one for each of {rows}"
        )
    return lists
