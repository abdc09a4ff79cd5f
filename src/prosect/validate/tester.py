"""What every kind of test looks like, and how numbers become evidence.

A tester is made for all plans of its kind in a family. It names the sites it wants captured, is shown
every batch of the fold once, and then gives one `Evidence` for each plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.exhibits import Scatter
from prosect.core.intervals import Contrast, Resamples, Statistic, Term
from prosect.core.records import Comparison, Evidence, Hypothesis, Measured, Rival, TestPlan
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.validate.subject import Captured, Subject


@dataclass(frozen=True)
class Item:
    """One plan of one hypothesis."""

    hypothesis: Hypothesis
    plan: TestPlan


@runtime_checkable
class Tester(Protocol):
    """One kind of test, for every plan of that kind in a family."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        """Prepare; nothing is opened yet."""

    def sites(self) -> tuple[str, ...]:
        """What must be captured in the pass over the fold."""

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """See one batch of the fold."""

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item, in order."""


@dataclass(frozen=True)
class Illustrations:
    """What a test saw beside its evidence, by hypothesis id; it decides nothing.

    Attributes:
        scatters: a sample of measured against predicted activations.
        outputs: output → how far it fell when the component was removed.
    """

    scatters: dict[str, Scatter] = field(default_factory=dict)
    outputs: dict[str, Mapping[int, Measured]] = field(default_factory=dict)

    def add(self, other: Illustrations) -> None:
        """Take in another fold's."""
        self.scatters.update(other.scatters)
        self.outputs.update(other.outputs)


@runtime_checkable
class Illustrated(Protocol):
    """A test that has something to show beside its evidence."""

    def illustrate(self) -> Illustrations:
        """What it saw; asked for after `Tester.finish`."""


class DrawCache:
    """Resamples shared by all tests of a family that have the same units and number of draws."""

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self._made: dict[tuple[int, int, str], Resamples] = {}

    def get(self, units: int, draws: int, name: str = "fold") -> Resamples:
        """The resamples for ``units`` units."""
        key = (units, draws, name)
        if key not in self._made:
            self._made[key] = Resamples(units, draws, self.seed.child(name, units, draws))
        return self._made[key]


Sums = Float[np.ndarray, "units k"]


def compare(
    item: Item,
    own: Sums,
    rivals: Sequence[tuple[Rival, Sequence[Sums]]],
    statistic: Statistic,
    draws: DrawCache,
    *,
    firing: int | None = None,
    paired: bool = True,
    note: str = "",
) -> Evidence:
    """Evidence for a component measured against its rivals on the same units.

    A rival with several members (several random directions) counts as their mean. The p-value is the
    largest over the rivals that decide: all of them must be beaten.

    Args:
        item: the plan.
        own: sums of the component.
        rivals: each rival with the sums of its members.
        statistic: what the sums mean.
        draws: shared resamples.
        firing: units in which the component was active; None where that means nothing.
        paired: the rivals were measured on the component's units; if not, units of either are resampled.
        note: what the reader must know.
    """
    plan = item.plan
    present = own[:, 0] != 0
    units = int(present.sum())
    if not paired:
        present = np.any([present, *(m[:, 0] != 0 for _, members in rivals for m in members)], axis=0)
    resamples = draws.get(int(present.sum()), plan.draws) if units else None
    base: dict[str, Any] = {"hypothesis": item.hypothesis.id, "test": plan.name, "units": units}
    fired = units if firing is None else firing
    notes = [note] if note else []
    if units < plan.units_min:
        notes.append(f"{units} units where {plan.units_min} were asked for")
    if fired < plan.firing_min:
        notes.append(f"active in {fired} units where {plan.firing_min} were asked for")
    enough = units >= plan.units_min and fired >= plan.firing_min
    if resamples is None:
        nothing = Measured(estimate=None, note="no unit to measure")
        return Evidence(**base, measured=nothing, enough=False, firing=0, note="; ".join(notes))
    terms = [Term([own[present]])]
    wanted = [Contrast(0)]
    told: list[Rival] = []
    ps: list[float | None] = []
    for rival, members in rivals:
        if not members:
            notes.append(f"{rival.name} could not be measured")
            if rival.decides:
                ps.append(None)
            continue
        told.append(rival)
        terms.append(Term.mean([m[present] for m in members]))
        wanted += [
            Contrast(len(told)),
            Contrast(0, len(told), margin=rival.margin, decides=rival.decides),
        ]
    measured, *results = (r for r in resamples.contrasts(terms, wanted, statistic))
    comparisons: list[Comparison] = []
    for rival, its, gap in zip(told, results[::2], results[1::2], strict=True):
        if rival.decides:
            ps.append(gap.p)
        comparisons.append(
            Comparison(
                rival=rival.name,
                role=rival.role,
                decides=rival.decides,
                measured=its.measured,
                difference=gap.measured,
                margin=rival.margin,
                p=gap.p,
            )
        )
    known = [p for p in ps if p is not None]
    p = max(known) if known and len(known) == len(ps) else None
    return Evidence(
        **base,
        measured=measured.measured,
        comparisons=tuple(comparisons),
        p=p,
        firing=fired,
        enough=enough and p is not None,
        note="; ".join(notes),
    )
