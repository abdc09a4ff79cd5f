"""Means and correlations over independent units, gathered batch by batch, with intervals and paired differences.

Whatever is measured at positions belongs to a unit (a document, an input), and units are what is resampled:
positions of one document are not independent. All numbers of one `Averages` are measured on the same
resamples, so a difference of two of them is a paired one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.core.errors import TooLittleData
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Resamples, Statistic, Term, moments
from prosect.core.records import Measured
from prosect.core.seeds import Seed


@dataclass(frozen=True)
class Wanted:
    """A number to be read off.

    Attributes:
        of: quantities whose plain mean it is; usually one.
        against: quantities whose plain mean is subtracted; empty for none.
    """

    of: tuple[Hashable, ...]
    against: tuple[Hashable, ...] = ()


class Averages:
    """Sums by unit of any number of named quantities.

    Args:
        statistic: what the sums make: `Mean` or `Correlation`.
    """

    def __init__(self, statistic: Statistic | None = None) -> None:
        self.statistic: Statistic = Mean() if statistic is None else statistic
        self._sums: dict[Hashable, dict[int, Float[np.ndarray, " k"]]] = {}

    def add(self, name: Hashable, value: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"]) -> None:
        """Add values to a mean, each with its unit."""
        present, inverse = np.unique(unit, return_inverse=True)
        count = np.bincount(inverse, minlength=len(present)).astype(float)
        total = np.bincount(inverse, weights=value.astype(float), minlength=len(present))
        self._gather(name, present, np.stack([count, total], axis=1))

    def add_pairs(
        self,
        name: Hashable,
        x: Float[np.ndarray, " n"],
        y: Float[np.ndarray, " n"],
        unit: Int[np.ndarray, " n"],
    ) -> None:
        """Add pairs to a correlation, each with its unit."""
        present, inverse = np.unique(unit, return_inverse=True)
        self._gather(name, present, moments(x, y, inverse, len(present)))

    def _gather(self, name: Hashable, units: Int[np.ndarray, " u"], sums: Float[np.ndarray, "u k"]) -> None:
        held = self._sums.setdefault(name, {})
        for unit, row in zip(units.tolist(), sums, strict=True):
            held[unit] = held[unit] + row if unit in held else row

    @property
    def units(self) -> tuple[int, ...]:
        """The units that anything was added for."""
        return tuple(sorted({unit for held in self._sums.values() for unit in held}))

    def measure(
        self, wanted: Mapping[str, Wanted], seed: Seed, draws: int = INTERVAL_DRAWS
    ) -> dict[str, Measured]:
        """Every wanted number with its 95 % interval, on the same resamples of units.

        Args:
            wanted: label → what it is made of.
            seed: of the resamples.
            draws: how many.

        Raises:
            TooLittleData: nothing was added.
            NotFinite: a value was NaN or infinite.
        """
        units = self.units
        if not units:
            raise TooLittleData("nothing to average", "at least one scored position", "more rows")
        terms: list[Term] = []
        index: dict[tuple[Hashable, ...], int] = {}

        def term(names: tuple[Hashable, ...]) -> int:
            if names not in index:
                index[names] = len(terms)
                terms.append(Term.mean([self._of(name, units) for name in names]))
            return index[names]

        contrasts = [Contrast(term(w.of), term(w.against) if w.against else None) for w in wanted.values()]
        resamples = Resamples(len(units), draws, seed)
        found = resamples.contrasts(terms, contrasts, self.statistic)
        return {
            label: result.measured
            if all(self._some(name) for name in (*w.of, *w.against))
            else Measured(estimate=None, note="nothing was measured")
            for (label, w), result in zip(wanted.items(), found, strict=True)
        }

    def _some(self, name: Hashable) -> bool:
        """Whether anything was added under this name; the first of the sums is a count."""
        return any(sums[0] > 0 for sums in self._sums.get(name, {}).values())

    def _of(self, name: Hashable, units: tuple[int, ...]) -> Float[np.ndarray, "u k"]:
        held, nothing = self._sums.get(name, {}), np.zeros(self.statistic.k)
        return np.stack([held.get(unit, nothing) for unit in units])
