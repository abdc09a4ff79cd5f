"""The plain accounts that a rule must beat: mean activation by token, by position, by token frequency.

Means are shrunk towards the overall mean by the empirical-Bayes factor of `splits.shrinkage`, so that a
token seen twice is not taken at its word.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int

from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.contexts import Columns, Contexts, columns_of
from prosect.describe.executables import parameters_of, reading, tensor_of
from prosect.describe.splits import shrunk_means
from prosect.store.shelf import Shelf

T = TypeVar("T", bound="TokenTable")


class TokenTable:
    """Mean activation for each token: the unigram table.

    Args:
        means: the prediction for each token, shape (tokens,).
        default: the prediction for a token outside the table.
    """

    kind = "token-table"
    version = 1

    def __init__(self, means: Float[np.ndarray, " cells"], default: float) -> None:
        self.means, self.default = means, default

    @classmethod
    def fit(cls: type[T], contexts: Contexts, activation: Float[np.ndarray, " _"]) -> T:
        """The table of explored activations.

        Raises:
            ShapeMismatch: there is not one activation for each explored position.
            NotFinite: one is NaN or infinite.
        """
        values = contexts.checked(activation)
        return cls(cls._means(contexts, values), float(values.mean()))

    @classmethod
    def _means(cls, contexts: Contexts, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " cells"]:
        return grouped(contexts.tokens, values, len(contexts.vocabulary))

    def _cell(self, columns: Columns) -> Int[np.ndarray, " n"]:
        return columns.token(0)

    @classmethod
    def of(cls: type[T], executable: Executable, shelf: Shelf) -> T:
        """The table that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            default = float(parameters["default"])
        means = np.asarray(tensor_of(executable, "means", shelf).numpy(), dtype=np.float64)
        if means.ndim != 1 or not np.isfinite(means).all():
            raise BadInput(f"means of shape {means.shape} in a {cls.kind}", "one finite number for each cell")
        return cls(means, default)

    def executable(self, shelf: Shelf) -> Executable:
        """As stored: the means on the shelf."""
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={"default": self.default},
            tensors={"means": shelf.put(torch.from_numpy(self.means))},
        )

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation at scored positions, in the order of ``batch.flat``.

        Raises:
            BadInput: the batch holds no tokens.
        """
        cell = self._cell(columns_of(batch, None))
        known = np.append(self.means, self.default)
        return np.asarray(known[np.where(cell < len(self.means), cell, -1)])


class PositionTable(TokenTable):
    """Mean activation for each position in the row; the overall mean beyond the longest row explored."""

    kind = "position-table"

    @classmethod
    def _means(cls, contexts: Contexts, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " cells"]:
        return grouped(contexts.position, values, int(contexts.position.max()) + 1)

    def _cell(self, columns: Columns) -> Int[np.ndarray, " n"]:
        return columns.position


class FrequencyTable(TokenTable):
    """Mean activation for each band of token frequency: bands double in how often a token was explored."""

    kind = "frequency-table"

    @classmethod
    def _means(cls, contexts: Contexts, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " cells"]:
        counts = np.bincount(contexts.tokens, minlength=len(contexts.vocabulary))
        band = np.ceil(np.log2(counts + 1.0)).astype(np.int64)
        return np.asarray(grouped(band[contexts.tokens], values, int(band.max()) + 1)[band])


def grouped(
    group: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], groups: int
) -> Float[np.ndarray, " groups"]:
    """The mean of each group, shrunk towards the overall mean; that of a group that was not seen is the overall one."""
    counts = np.bincount(group, minlength=groups).astype(float)
    totals = np.bincount(group, weights=values, minlength=groups)
    return shrunk_means(counts, totals, float((values * values).sum()))
