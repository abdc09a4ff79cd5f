"""Indirect-object sentences: two names, one of them again, and the other to come.

"When Mary and John went to the store, John gave a drink to" is followed by Mary (Wang et al. 2022, "Interpretability
in the Wild: a Circuit for Indirect Object Identification in GPT-2 Small"). In the counterfactual all three places
hold other names, no two of them the same, so nothing says which of two names comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.data.batch import Batch


@dataclass(frozen=True, eq=False)
class IndirectObjects:
    """Rows that end right before the indirect object, beside their counterfactuals.

    Attributes:
        clean, counterfactual: rows of the same length, row by row.
        io, s: token of the indirect object (the answer) and of the subject (the repeated name) of each clean row.
        io_at, s1_at, s2_at: their positions; the prediction is made at the last position of the row.

    Raises:
        ShapeMismatch: not one of each for every row, or a pair of unequal length.
        BadInput: a position whose token is not the name it should be.
    """

    clean: Batch
    counterfactual: Batch
    io: Int[np.ndarray, " rows"]
    s: Int[np.ndarray, " rows"]
    io_at: Int[np.ndarray, " rows"]
    s1_at: Int[np.ndarray, " rows"]
    s2_at: Int[np.ndarray, " rows"]

    def __post_init__(self) -> None:
        n = len(self.clean)
        sizes = {len(self.counterfactual), *(len(x) for x in (self.io, self.s, *self.places.values()))}
        if sizes != {n} or not np.array_equal(self.clean.lengths, self.counterfactual.lengths):
            raise ShapeMismatch(
                f"rows, answers or places for {sorted(sizes)} sentences",
                f"one for each of {n} clean rows, and pairs of the same length",
            )
        ids, rows = self.clean.tensors["input_ids"].cpu().numpy(), np.arange(n)
        for at, token in ((self.io_at, self.io), (self.s1_at, self.s), (self.s2_at, self.s)):
            if (ids[rows, at] != token).any():
                row = int(np.flatnonzero(ids[rows, at] != token)[0])
                raise BadInput(f"row {row}, where another token stands", f"token {token[row]} at {at[row]}")

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def places(self) -> dict[str, Int[np.ndarray, " rows"]]:
        """Name of a place → its position in each row."""
        return {
            "IO": self.io_at,
            "S1": self.s1_at,
            "S1+1": self.s1_at + 1,
            "S2": self.s2_at,
            "END": self.clean.lengths - 1,
        }

    def metric(self, output: Float[Tensor, "rows positions vocab"], batch: Batch) -> Float[Tensor, " rows"]:
        """Logit of the indirect object minus that of the subject, at the last position.

        Args:
            output: logits, at all positions or at the last ones alone.
            batch: the rows they are of: some of the clean or counterfactual ones.
        """
        which = [self._number[row] for row in batch.rows]
        at = torch.arange(len(which), device=output.device)
        last = torch.as_tensor(batch.lengths, device=output.device) - 1
        logits = output[:, 0] if output.shape[1] == 1 else output[at, last]
        io, s = (torch.as_tensor(x[which], device=output.device) for x in (self.io, self.s))
        return logits[at, io] - logits[at, s]

    @property
    def _number(self) -> dict[object, int]:
        return {row: i for i, row in enumerate(self.clean.rows)}
