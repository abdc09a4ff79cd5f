"""Several places patched at once, beside each of them alone: redundancy, serial dependence, features that span layers.

Of parts that do the same work, patching one alone may change nothing and both together everything (an OR);
of parts that only work together, each alone breaks all there is to break (an AND). The interaction, joint
minus the sum of singles, tells them apart. One direction sees what the other misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from prosect.core.errors import BadInput
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.model.edits import Edit
from prosect.model.patching.cells import ALONE, Donor, cell_edit, there
from prosect.model.patching.metrics import Metric, measured_by
from prosect.model.patching.nodes import nodes_of
from prosect.model.patching.pairs import Alignment, Direction, Pairs, Positions
from prosect.model.patching.scores import Cost, RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

Relation = Literal["redundant", "overlapping", "additive", "undecided"]


@dataclass(frozen=True)
class JointCell:
    """One set.

    Attributes:
        name: of the set.
        members: what is in it.
        joint: effect of all of them at once.
        singles: effect of each by itself.
        interaction: joint minus the sum of singles, row by row.
        relation: ``redundant`` where the joint effect clearly goes beyond the sum of singles, ``overlapping``
            where it clearly falls short of it, ``additive`` where there is no interaction at all beyond rounding,
            ``undecided`` where its interval includes zero or there is none.
        mismatched: the joint effect with values of an unrelated row.
    """

    name: str
    members: tuple[str, ...]
    joint: Measured
    singles: tuple[Measured, ...]
    interaction: Measured
    relation: Relation
    mismatched: Measured


@dataclass(frozen=True, eq=False)
class JointEffects:
    """Effects of sets.

    Attributes:
        direction: which run is patched.
        sets: name → members.
        joint: (sets, rows).
        singles: for each set (members, rows).
        mismatched: (sets, rows), or None where there was no unrelated row.
        base, other: (rows,): the metric on both runs.
        cost: of all of it.
    """

    direction: Direction
    sets: Mapping[str, tuple[str, ...]]
    joint: RowScores = field(repr=False)
    singles: tuple[RowScores, ...] = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    cost: Cost

    def interaction(self, name: str) -> RowScores:
        """Joint minus the sum of singles, (rows,)."""
        i = list(self.sets).index(name)
        both, alone = self.joint.values[i], self.singles[i].values.sum(axis=0)
        return RowScores(both - alone, self.joint.units, self.joint.seed)

    def share(self, name: str) -> Measured:
        """The joint effect as a share of the gap between the runs."""
        gap = self.other.values - self.base.values
        return self.joint.share(list(self.sets).index(name), of=gap)

    def table(self) -> tuple[JointCell, ...]:
        """Every set."""
        out = []
        for i, (name, members) in enumerate(self.sets.items()):
            joint, interaction = self.joint.measured(i), self.interaction(name)
            control = Measured(estimate=None, note=ALONE)
            if self.mismatched is not None:
                control = self.mismatched.measured(i)
            singles = tuple(self.singles[i].measured(m) for m in range(len(members)))
            scale = float(np.nanmax(np.abs([*self.joint.values[i], *self.singles[i].values.ravel()])))
            out.append(
                JointCell(
                    name,
                    members,
                    joint,
                    singles,
                    interaction.measured(),
                    _relation(interaction, joint, scale),
                    control,
                )
            )
        return tuple(out)


def joint_effects(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    sets: Mapping[str, Sequence[str]],
    *,
    direction: Direction = "noising",
    positions: Positions = "all",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> JointEffects:
    """Patch sets of nodes, each at once and member by member.

    Args:
        sets: name → sites, heads or units; sites of different layers for what spans several of them.
        direction: which run is patched.
        positions: one set of positions, the same for every member.
        others: as for `noising`, whose errors these are.
    """
    if not sets:
        raise BadInput("no sets", "at least one set of sites")
    pairs = Pairs.of(model, clean, corrupted, alignment)
    spans = pairs.spans(positions)
    if len(spans) != 1:
        raise BadInput(f"{len(spans)} sets of positions", "one", 'positions="all", or {"name": [...]}')
    members = {name: nodes_of(model, list(chosen)) for name, chosen in sets.items()}
    donor = Donor.of(
        model, pairs, direction, list(dict.fromkeys(n.site for listed in members.values() for n in listed))
    )
    strangers = pairs.strangers(Seed(seed)) if control else None
    donors = [donor] + ([] if strangers is None else [donor.from_rows(strangers.tolist())])
    lists: list[list[Edit]] = [[]]
    for listed in members.values():
        for source in donors:
            edits = [cell_edit(n, spans[0], pairs, direction, source) for n in listed]
            lists.append([e for e in edits if e is not None])
        lists += [[e] for n in listed if (e := cell_edit(n, spans[0], pairs, direction, donor)) is not None]
    found = model.sweep(lists, pairs.base(direction), metric, budget_mb)
    other = measured_by(model, pairs.donor(direction), metric, budget_mb).numpy()

    def rows(values: np.ndarray) -> RowScores:
        return RowScores(values, pairs.clean.units, Seed(seed).child("rows"))

    base, at = found[0], 1
    joint, foreign, singles = [], [], []
    has = there(spans, None)[0]
    has_foreign = there(spans, None if strangers is None else strangers.tolist())[0]
    for listed in members.values():
        joint.append(np.where(has, found[at] - base, np.nan))
        if strangers is not None:
            foreign.append(np.where(has_foreign, found[at + 1] - base, np.nan))
        at += len(donors)
        singles.append(rows(np.where(has, found[at : at + len(listed)] - base, np.nan)))
        at += len(listed)
    return JointEffects(
        direction,
        {name: tuple(map(str, listed)) for name, listed in members.items()},
        rows(np.stack(joint)),
        tuple(singles),
        rows(np.stack(foreign)) if foreign else None,
        rows(base),
        rows(other),
        Cost(forward=len(lists) + 2),
    )


def _relation(interaction: RowScores, joint: Measured, scale: float) -> Relation:
    found = interaction.measured()
    if found.estimate is None:
        return "undecided"
    if float(np.nanmax(np.abs(interaction.values))) <= 1e-5 * max(scale, 1e-12):
        return "additive"
    if found.low is None or found.high is None or found.low <= 0.0 <= found.high:
        return "undecided"
    beyond = found.estimate * (joint.estimate or 0.0) > 0
    return "redundant" if beyond else "overlapping"
