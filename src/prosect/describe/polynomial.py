"""A plain account of a unit with two inputs: a polynomial, as a baseline and as the simple fit to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.executables import parameters_of, reading
from prosect.describe.wording import significant
from prosect.store.shelf import Shelf


@dataclass(frozen=True)
class Polynomial:
    """c₀ + c₁ a + c₂ b + c₃ ab of the two columns of an integer input.

    Attributes:
        coefficients: c₀ to c₃.
        tensor: name of the batch's tensor, integers (n, 2).

    Raises:
        BadInput: there are not four finite coefficients.
    """

    coefficients: tuple[float, ...]
    tensor: str = "pairs"

    kind = "polynomial"
    version = 1

    def __post_init__(self) -> None:
        if len(self.coefficients) != 4 or not all(map(math.isfinite, self.coefficients)):
            raise BadInput(f"coefficients {self.coefficients}", "four finite numbers")

    @classmethod
    def fit(
        cls, pairs: Int[np.ndarray, "n 2"], activation: Float[np.ndarray, " _"], tensor: str = "pairs"
    ) -> Polynomial:
        """Least squares.

        Raises:
            ShapeMismatch: there is not one activation for each pair.
        """
        if activation.shape != (len(pairs),):
            raise ShapeMismatch(f"{activation.shape} activations", f"one for each of {len(pairs)} pairs")
        weights = np.linalg.lstsq(_design(pairs), activation.astype(np.float64), rcond=None)[0]
        return cls(tuple(significant(float(w), 9) for w in weights), tensor)

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> Polynomial:
        """The polynomial that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            return cls(tuple(float(c) for c in parameters["coefficients"]), str(parameters["tensor"]))

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={"coefficients": list(self.coefficients), "tensor": self.tensor},
        )

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation of every pair.

        Raises:
            BadInput: the batch has no such tensor of pairs.
        """
        if self.tensor not in batch.tensors or batch.mask is not None:
            raise BadInput(f"a batch of {', '.join(batch.tensors)}", f"{self.tensor!r}, pairs of integers")
        return np.asarray(
            _design(batch.tensors[self.tensor].detach().cpu().numpy()) @ np.array(self.coefficients)
        )


def _design(pairs: np.ndarray) -> Float[np.ndarray, "n 4"]:
    a, b = pairs[:, 0].astype(np.float64), pairs[:, 1].astype(np.float64)
    return np.stack([np.ones(len(pairs)), a, b, a * b], axis=1)
