"""Is a concept linear, both ways? Read off along a direction, and changed in proportion by adding it.

The linear representation hypothesis says two things that can come apart (Park, Choe & Veitch 2024, "The linear
representation hypothesis and the geometry of large language models"): a linear probe reads the concept, and adding a
multiple of one direction changes what is computed in proportion. `readout` asks the first, `dose_response` the second, of any
function of the activations or of a model steered by `prosect.describe.dose.dose_curve`. The weak version of the hypothesis
says that some concepts are linear, the strong one that all are; `versions` says what a set of concepts shows of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.nonlinear import UNITS, Readout, readout

MATERIAL = 0.05
"""A gap is one if the whole interval lies above this, and none if it lies below."""
STRENGTHS = (-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0)
"""In units of the difference between the means with and without the concept."""
LEAST = 4
"""Strengths other than 0 that tell a line from a cubic."""


def _word(gap: Measured) -> bool | None:
    """Whether there is no gap; None where its interval does not tell."""
    if gap.low is None or gap.high is None:
        return None
    return True if gap.high <= MATERIAL else False if gap.low > MATERIAL else None


@dataclass(frozen=True)
class Steered:
    """How a number changes by dose. Shares are of the squared change from dose 0, over rows and doses.

    Attributes:
        line: share that each row's own straight line through 0 explains.
        curve: share that each row's own cubic through 0 explains.
        gap: curve less line, from 0 to 1: how much of the change is not in proportion to the dose.
        common: share that one line for all rows explains: low where what a dose does depends on the input.
        slope: of that line.
    """

    line: Measured
    curve: Measured
    gap: Measured
    common: Measured
    slope: float

    @property
    def linear(self) -> bool | None:
        """Whether doses act in proportion; None where the interval does not tell."""
        return _word(self.gap)


def dose_response(
    strengths: Sequence[float],
    values: Float[np.ndarray, "doses rows"],
    seed: Seed,
    units: np.ndarray | None = None,
) -> Steered:
    """Tell a line from a curve, row by row, with intervals over units.

    Args:
        strengths: of the doses, 0 among them.
        values: of what is measured, at every dose in every row; `DoseCurve.per_row` is of this form.
        seed: of the resampling.
        units: the independent unit of each row, such as its document; None where every row is one.

    Raises:
        ShapeMismatch: not one line of values for each dose, or one unit for each row.
        BadInput: no dose of 0, or nothing changes by any dose.
        TooLittleData: fewer than 4 other doses.
        NotFinite: a value is NaN or infinite.
    """
    s, y = np.asarray(strengths, dtype=float), np.asarray(values, dtype=float)
    if y.ndim != 2 or len(y) != len(s) or (units is not None and len(units) != y.shape[1]):
        raise ShapeMismatch(
            f"values {y.shape} at {len(s)} doses", "a line for each dose, a unit for each row"
        )
    if not np.isfinite(y).all() or not np.isfinite(s).all():
        raise NotFinite("NaN or infinity among the values or doses", "finite numbers")
    if not (s == 0).any():
        raise BadInput(f"doses {list(s)}", "0 among them, from which change is counted")
    if len(np.unique(s[s != 0])) < LEAST:
        raise TooLittleData(f"{len(np.unique(s[s != 0]))} doses other than 0", f"at least {LEAST}")
    change = y - y[np.flatnonzero(s == 0)[0]]
    total = np.square(change).sum(axis=0)
    if not total.sum() > 1e-18 * np.square(y).sum():
        raise BadInput("doses that change nothing", "a direction that does something to what is measured")
    powers = np.stack([s, s**2, s**3], axis=1)
    explained = {}
    for name, design in (("line", powers[:, :1]), ("curve", powers)):
        fit = design @ np.linalg.lstsq(design, change, rcond=None)[0]
        explained[name] = total - np.square(change - fit).sum(axis=0)
    slope = float((s @ change).sum() / (s @ s * change.shape[1]))
    explained["common"] = total - np.square(change - slope * s[:, None]).sum(axis=0)
    explained["gap"] = explained["curve"] - explained["line"]
    unit = np.arange(len(total)) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    resamples = Resamples(int(unit.max()) + 1, INTERVAL_DRAWS, seed.child("resamples"))

    def share(name: str) -> Measured:
        sums = np.stack([np.bincount(unit, weights=w) for w in (total, explained[name])], axis=1)
        return resamples.measure([sums], Mean(-1.0 if name == "common" else 0.0, 1.0)).measured

    return Steered(share("line"), share("curve"), share("gap"), share("common"), slope)


@dataclass(frozen=True)
class Linearity:
    """One concept, read and steered.

    Attributes:
        read: what hidden units read beyond a linear probe.
        steered: what doses of its direction change beyond a line.
    """

    read: Readout
    steered: Steered

    @property
    def read_linearly(self) -> bool | None:
        """Whether hidden units add nothing and the probe is better than chance; None where intervals do not tell."""
        if self.read.linear <= self.read.chance + MATERIAL:
            return False if _word(self.read.gap) is False else None
        return _word(self.read.gap)

    @property
    def linear(self) -> bool | None:
        """Whether it is linear both ways; False as soon as it is not in one."""
        both = (self.read_linearly, self.steered.linear)
        return False if False in both else None if None in both else True


def linearity(
    x: Float[Tensor, "n width"],
    y: Bool[Tensor, " _"],
    effect: Callable[[Tensor], Tensor],
    seed: Seed,
    units: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
    hidden: int = UNITS,
) -> Linearity:
    """Read a concept with and without hidden units, and steer it along the difference of its means.

    Args:
        x: activations.
        y: where the concept is present.
        effect: what is computed from activations and should speak of the concept: (n, width) → (n).
        seed: of hidden units and resampling.
        units: the independent unit of each row.
        strengths: doses in units of the difference of means; 0 is added to them.
        hidden: how many hidden units.

    Raises:
        ShapeMismatch, BadInput, TooLittleData, NotFinite: as `readout` and `dose_response` do.
    """
    read = readout(x, y, seed.child("read"), units, hidden)
    first, label = x[::2].double(), y[::2]
    direction = first[label].mean(dim=0) - first[~label].mean(dim=0)
    doses = sorted({0.0, *(float(s) for s in strengths)})
    rest = x[1::2].double()
    with torch.no_grad():
        values = np.stack([effect(rest + s * direction).double().cpu().numpy() for s in doses])
    own = None if units is None else np.asarray(units)[1::2]
    return Linearity(read, dose_response(doses, values, seed.child("steer"), own))


@dataclass(frozen=True)
class Versions:
    """What a set of concepts shows of the hypothesis; None where it does not tell.

    Attributes:
        weak: whether some concept is linear, read and steered.
        strong: whether all are.
        against: those that are not, with where: ``read``, ``steered`` or both.
    """

    weak: bool | None
    strong: bool | None
    against: dict[str, str]


def versions(concepts: Mapping[str, Linearity]) -> Versions:
    """The weak and the strong version of the hypothesis on the concepts that were asked for; others may differ.

    Raises:
        TooLittleData: there is no concept.
    """
    if not concepts:
        raise TooLittleData("no concepts", "at least one")
    found = [one.linear for one in concepts.values()]
    against = {
        name: " and ".join(
            where
            for where, linear in (("read", one.read_linearly), ("steered", one.steered.linear))
            if linear is False
        )
        for name, one in concepts.items()
        if one.linear is False
    }
    weak = True if True in found else None if None in found else False
    strong = False if False in found else None if None in found else True
    return Versions(weak, strong, against)
