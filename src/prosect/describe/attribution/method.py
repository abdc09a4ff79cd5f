"""What every attribution method is given and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.reference import Reference


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method found.

    Attributes:
        values: (rows, features); zero at padding.
        promised: what each row's values should add up to, where the method promises that; None otherwise.
        errors: standard error of each value, where the method samples.
        replaces: whether a value says what replacing its feature by the reference changes, in the metric's
            units; only then can it be compared with what replacing does change.
        stability: mean rank correlation between repeats of each row's map, where the method repeats itself.
        joint: what replacing every feature at once changes, where the method measures it.
        notes: what the reader should know.
    """

    values: Float[np.ndarray, "rows features"]
    promised: Float[np.ndarray, " rows"] | None = None
    errors: Float[np.ndarray, "rows features"] | None = None
    replaces: bool = True
    stability: Float[np.ndarray, " rows"] | None = None
    joint: Float[np.ndarray, " rows"] | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Method(Protocol):
    """A way to say how much each feature counts.

    Anything with these attributes can be handed to `attribute` in place of a name.
    """

    @property
    def name(self) -> str:
        """For people and records."""

    @property
    def gradient(self) -> bool:
        """Whether it rests on gradients, so that its error against exact replacement is worth measuring."""

    @property
    def several(self) -> bool:
        """Whether it averages over a background rather than starting from one baseline."""

    @property
    def words(self) -> str:
        """What a value means: the value function."""

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """Attribute every row of ``explicand``."""
