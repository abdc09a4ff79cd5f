"""Direct and indirect effects of components: what each does to the output by itself, and through the others.

Of a component given what it had in the other run: *total* is the whole change of the metric; *direct* is the
change when only what it adds to the last stream reaches the output, through the last norm as it then scales;
*indirect* is the change when everything but that reaches it, the component's own contribution being held at what it
was (Pearl 2001, "Direct and Indirect Effects"; McGrath et al. 2023, "The Hydra Effect", section 2). Both are
measured. Where the output is linear in the last stream they add up to the total; what is missing elsewhere is
the interaction, shown beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from prosect.core.errors import BadInput
from prosect.core.records import Measured
from prosect.model.edits import patch
from prosect.model.patching.captures import captures
from prosect.model.patching.cells import ALONE, Candidate
from prosect.model.patching.edges import Differences, last_stream, writers_of
from prosect.model.patching.metrics import Metric, measured_by
from prosect.model.patching.pairs import Alignment, Direction, Positions
from prosect.model.patching.scores import Cost, RowScores
from prosect.model.patching.setting import Setting

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

PARTS = ("total", "direct", "indirect")


@dataclass(frozen=True)
class MediationRow:
    """One component.

    Attributes:
        component: which.
        total, direct, indirect: changes of the metric, mean over rows.
        interaction: total minus direct minus indirect, row by row: zero where the output is linear in the
            last stream.
        mismatched: the total effect with values of an unrelated row.
    """

    component: str
    total: Measured
    direct: Measured
    indirect: Measured
    interaction: Measured
    mismatched: Measured


@dataclass(frozen=True, eq=False)
class Mediation:
    """Total, direct and indirect effects.

    Attributes:
        direction: which run is patched.
        components: in forward order.
        total, direct, indirect: (components, rows).
        mismatched: the control of the total, or None where there was no unrelated row.
        base, other: (rows,): the metric on both runs.
        cost: of all of it.
        notes: what was decided.
    """

    direction: Direction
    components: tuple[str, ...]
    total: RowScores = field(repr=False)
    direct: RowScores = field(repr=False)
    indirect: RowScores = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    cost: Cost
    notes: tuple[str, ...] = ()

    @property
    def interaction(self) -> RowScores:
        """What direct and indirect leave of the total, (components, rows)."""
        return self.total.minus(self.direct).minus(self.indirect)

    def table(self) -> tuple[MediationRow, ...]:
        """Every component."""
        out = []
        for i, name in enumerate(self.components):
            control = Measured(estimate=None, note=ALONE)
            if self.mismatched is not None:
                control = self.mismatched.measured(i)
            total, direct, indirect, interaction = (
                s.measured(i) for s in (self.total, self.direct, self.indirect, self.interaction)
            )
            out.append(MediationRow(name, total, direct, indirect, interaction, control))
        return tuple(out)

    def top(self, k: int = 10) -> tuple[Candidate, ...]:
        """The components whose explored total is largest either way: candidates, not estimates."""
        mean = np.nan_to_num(self.total.mean)
        order = np.argsort(-np.abs(mean), kind="stable")[:k]
        return tuple(Candidate(self.components[i], "all", float(mean[i])) for i in order)


def mediation(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    components: Sequence[str] | None = None,
    *,
    direction: Direction = "noising",
    positions: Positions = "all",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Mediation:
    """Total, direct and indirect effect of each component.

    Costs five passes for each component, three of which compute nothing but what follows the last stream.

    Args:
        components: writers (`edges.writers_of`); every head and MLP and the first stream by default.
        positions: one set of positions, at which components are patched.
        others: as for `noising`, whose errors these are.

    Raises:
        BadInput: a site that does not write to the stream, no component.
        Unsupported: a model without a residual stream whose sites are named.
    """
    last, writers = last_stream(model), writers_of(model, components)
    if not writers:
        raise BadInput("no components", "at least one")
    given = Setting.of(
        model, clean, corrupted, metric, direction, positions, alignment, control, seed, budget_mb
    )
    own = model.run(given.base, [last])[last]
    real, *foreign = given.donors([w.node.site for w in writers])
    differences = Differences(model, given.base, real, given.at, writers)
    edits = [w.node.edit(real.values[w.node.site], given.at) for w in writers]
    lists = [[] if e is None else [e] for e in edits]
    found: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    for writer, got in zip(writers, captures(model, given.base, lists, [last]), strict=True):
        alone = differences(writer)
        streams = (got[last], own + alone, got[last] - alone)
        for part, scores in zip(PARTS, given.sweep([[patch(last, x)] for x in streams]), strict=True):
            found[part].append(scores)
    mismatched = None
    if foreign:
        strange = [w.node.edit(foreign[0].values[w.node.site], given.at) for w in writers]
        mismatched = given.rows(given.sweep([[] if e is None else [e] for e in strange]))
    base, other = (
        measured_by(model, b, metric, budget_mb).numpy() for b in (given.base, given.pairs.donor(direction))
    )
    passes = differences.passes + (6 if foreign else 5) * len(writers) + 4
    total, direct, indirect = (given.rows(np.stack(found[part])) for part in PARTS)
    return Mediation(
        direction,
        tuple(w.name for w in writers),
        total,
        direct,
        indirect,
        mismatched,
        given.rows(base),
        given.rows(other),
        Cost(forward=passes),
        given.notes,
    )
