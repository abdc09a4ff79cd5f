"""Activation patching both ways: what the output becomes when a place has what it had in the other run.

*Noising* runs the clean row and puts in what the corrupted run had: what breaks was needed. *Denoising* runs
the corrupted row and puts in what the clean run had: what mends was enough (Heimersheim & Nanda 2024, "How to
use and interpret activation patching", section 2). The two differ: of two parts that do the same work, either
alone, noising one at a time shows nothing (`joint`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.model.edits import Edit
from prosect.model.patching.cells import ALONE, Candidate, Donor, cell_edit, there
from prosect.model.patching.metrics import Metric, measured_by
from prosect.model.patching.nodes import Each, Node, nodes_of
from prosect.model.patching.pairs import Alignment, Direction, Pairs, Positions
from prosect.model.patching.scores import Cost, RowScores, unusable
from prosect.model.reads import Positions as Reads

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model


@dataclass(frozen=True)
class Ends:
    """Proof that patching works here: its two extremes, where the answer is known.

    Attributes:
        nothing: largest change of the metric when every node is given what it already has.
        everything: largest difference from the other run's metric when the stream entering the first block
            is patched at every position; None where that is not all that the two runs differ in.
        note: why ``everything`` is missing.
    """

    nothing: float
    everything: float | None
    note: str = ""


@dataclass(frozen=True)
class PatchCell:
    """One cell of a map.

    Attributes:
        node, position: which.
        effect: metric with the patch minus metric without, mean over rows.
        share: the same as a share of the gap between the two runs: 0 changes nothing, 1 gives the other run.
        mismatched: the same effect when the value comes from an unrelated row's run: what any foreign value
            does there.
    """

    node: str
    position: str
    effect: Measured
    share: Measured
    mismatched: Measured


@dataclass(frozen=True, eq=False)
class PatchMap:
    """Effects of patching, node by position.

    Attributes:
        direction: which run is patched.
        nodes, positions: the axes; positions are those of the clean rows.
        effects: (nodes, positions, rows): metric with the patch minus metric without.
        mismatched: the control: the same with values of an unrelated row; None where it was not run.
        joint: (rows,): the effect of all cells patched at once.
        base, other: (rows,): the metric on the run that is patched, and on the run that values come from.
        ends: the extremes.
        cost: of all of it.
        notes: what was decided, and warnings.
        digests: the pairs that were used, so that they are not used again to confirm what they suggested.
        what, wanted: nodes and positions as they were found and asked for, for doing it again.
    """

    direction: Direction
    nodes: tuple[str, ...]
    positions: tuple[str, ...]
    effects: RowScores = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    joint: RowScores = field(repr=False)
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    ends: Ends
    cost: Cost
    notes: tuple[str, ...]
    digests: frozenset[str] = field(repr=False)
    what: tuple[Node, ...] = field(repr=False)
    wanted: Positions = field(repr=False)

    @property
    def gap(self) -> Measured:
        """Metric of the other run minus that of the run that is patched."""
        return self.other.minus(self.base).measured()

    def effect(self, node: str, position: str | int = "all") -> Measured:
        """Of one cell."""
        return self.effects.measured(*self._at(node, position))

    def share(self, node: str, position: str | int = "all") -> Measured:
        """Of one cell, as a share of the gap; not divided where the gap's interval includes zero."""
        return self.effects.share(*self._at(node, position), of=self.other.values - self.base.values)

    def table(self) -> tuple[PatchCell, ...]:
        """Every cell. Whoever picks the largest has chosen it on these rows: see `re_estimate`."""
        return tuple(self._cell(i, j) for i in range(len(self.nodes)) for j in range(len(self.positions)))

    def top(self, k: int = 10) -> tuple[Candidate, ...]:
        """The cells whose explored effect is largest either way: candidates, not estimates."""
        mean = self.effects.mean
        order = np.argsort(-np.abs(np.nan_to_num(mean)), axis=None, kind="stable")
        out = []
        for index in order[:k]:
            i, j = np.unravel_index(index, mean.shape)
            if np.isfinite(mean[i, j]):
                out.append(Candidate(self.nodes[i], self.positions[j], float(mean[i, j])))
        return tuple(out)

    def _cell(self, i: int, j: int) -> PatchCell:
        control = Measured(estimate=None, note=ALONE)
        if self.mismatched is not None:
            control = self.mismatched.measured(i, j)
        gap = self.other.values - self.base.values
        effect, share = self.effects.measured(i, j), self.effects.share(i, j, of=gap)
        return PatchCell(self.nodes[i], self.positions[j], effect, share, control)

    def _at(self, node: str, position: str | int) -> tuple[int, int]:
        if node not in self.nodes or str(position) not in self.positions:
            raise BadInput(f"cell {node} at {position}", "a node and a position of this map")
        return self.nodes.index(node), self.positions.index(str(position))


def noising(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    sites: str | Sequence[str],
    *,
    positions: Positions = "each",
    each: Each = "site",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
    reads: Reads | None = None,
) -> PatchMap:
    """Run clean rows, put in what the corrupted run had: which parts are needed.

    Args:
        model: what is run.
        clean: rows on which the behaviour shows.
        corrupted: the same rows with what it depends on changed.
        metric: output and rows → one number for each row, higher where the behaviour is stronger.
        sites: sites, heads or units, or a kind for all its layers (`nodes_of`).
        positions: what makes a cell (`Positions`).
        each: whether sites are patched whole, or head by head, or unit by unit.
        alignment: which position is which, where lengths differ.
        control: patch the same cells from unrelated rows too, which doubles the cost.
        seed: of the unrelated rows and the intervals.
        budget_mb: memory for one pass, as `Model.sweep` takes it.
        reads: positions of the output that the metric is handed, as `Model.sweep` takes them; what only other
            positions need is then not computed.

    Raises:
        ShapeMismatch: pairs of unequal length without an alignment, a metric that is not one number a row.
        BadInput, UnknownName, Unsupported: a site, head or position that is not there.
        NotFinite: the metric or an activation gave NaN or infinity.
    """
    given = _Given(model, metric, sites, positions, each, control, Seed(seed), budget_mb, reads)
    return given.map(Pairs.of(model, clean, corrupted, alignment), "noising")


def denoising(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    sites: str | Sequence[str],
    *,
    positions: Positions = "each",
    each: Each = "site",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
    reads: Reads | None = None,
) -> PatchMap:
    """Run corrupted rows, put in what the clean run had: which parts are enough.

    Arguments and errors are those of `noising`; positions are those of the clean rows.
    """
    given = _Given(model, metric, sites, positions, each, control, Seed(seed), budget_mb, reads)
    return given.map(Pairs.of(model, clean, corrupted, alignment), "denoising")


@dataclass(frozen=True, eq=False)
class _Given:
    """The arguments of a map."""

    model: Model
    metric: Metric
    sites: str | Sequence[str]
    positions: Positions
    each: Each
    control: bool
    seed: Seed
    budget_mb: int | float
    reads: Reads | None

    def map(self, pairs: Pairs, direction: Direction) -> PatchMap:
        model = self.model
        nodes, spans = nodes_of(model, self.sites, self.each), pairs.spans(self.positions)
        names = list(dict.fromkeys(node.site for node in nodes))
        first = "resid_pre.0" if pairs.complete and "resid_pre.0" in model.sites else None
        donor = Donor.of(model, pairs, direction, [*names, *([first] if first else [])])
        own = Donor(dict(model.run(pairs.base(direction), names).values))
        strangers = pairs.strangers(self.seed) if self.control else None

        lists: list[list[Edit]] = [[], [_whole(Node(name), own) for name in names]]
        if first:
            lists.append([_whole(Node(first), donor)])
        lists.append(_some(cell_edit(n, s, pairs, direction, donor) for n in nodes for s in spans))
        cells = [(node, span) for node in nodes for span in spans]
        wanted = [_some([cell_edit(n, s, pairs, direction, donor)]) for n, s in cells]
        if strangers is not None:
            foreign = donor.from_rows(strangers.tolist())
            wanted += [_some([cell_edit(n, s, pairs, direction, foreign)]) for n, s in cells]
        found = model.sweep([*lists, *wanted], pairs.base(direction), self.metric, self.budget_mb, self.reads)
        other = measured_by(model, pairs.donor(direction), self.metric, self.budget_mb, self.reads).numpy()

        base, joint = found[0], found[len(lists) - 1]
        ends = Ends(
            float(np.abs(found[1] - base).max()),
            float(np.abs(found[2] - other).max()) if first else None,
            "" if first else "not all that the two runs differ in is in one stream of the same positions",
        )
        shape = (len(nodes), len(spans), len(pairs))
        effects = found[len(lists) :] - base
        real = effects[: len(cells)].reshape(shape)
        real = np.where(there(spans, None), real, np.nan)
        mismatched = None
        if strangers is not None:
            mask = there(spans, strangers.tolist())
            mismatched = self._rows(np.where(mask, effects[len(cells) :].reshape(shape), np.nan), pairs)
        map_ = PatchMap(
            direction,
            tuple(map(str, nodes)),
            tuple(span.label for span in spans),
            self._rows(real, pairs),
            mismatched,
            self._rows(joint - base, pairs),
            self._rows(base, pairs),
            self._rows(other, pairs),
            ends,
            Cost(forward=len(lists) + len(wanted) + 3),
            self._notes(pairs, strangers is not None),
            frozenset(pairs.digests),
            nodes,
            self.positions,
        )
        return _warned(map_)

    def _rows(self, values: Float[np.ndarray, "*cells rows"], pairs: Pairs) -> RowScores:
        return RowScores(values, pairs.clean.units, self.seed.child("rows"))

    def _notes(self, pairs: Pairs, controlled: bool) -> tuple[str, ...]:
        out = []
        if pairs.aligned:
            out.append("positions are matched by the alignment given; those not in it are never patched")
        if not controlled:
            out.append(f"control {ALONE}" if self.control else "control not run: control=False")
        return tuple(out)


def _whole(node: Node, donor: Donor) -> Edit:
    edit = node.edit(donor.values[node.site])
    assert edit is not None
    return edit


def _some(edits: Iterable[Edit | None]) -> list[Edit]:
    return [edit for edit in edits if edit is not None]


def _warned(found: PatchMap) -> PatchMap:
    """With a warning where all cells together do what none does alone."""
    notes = list(found.notes)
    why = unusable(found.gap)
    if why:
        notes.append(f"shares of the gap: {why}")
    mean, joint = found.effects.mean, found.joint.measured()
    largest = np.nanmax(np.abs(mean)) if np.isfinite(mean).any() else 0.0
    clear = joint.low is None or joint.high is None or joint.low > 0 or joint.high < 0
    if len(mean.ravel()) > 1 and clear and abs(joint.estimate or 0.0) > 2 * largest:
        notes.append(
            "redundancy: all cells together do more than twice what any does alone; see joint_effects"
        )
    return replace(found, notes=tuple(notes))
