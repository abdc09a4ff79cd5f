"""Attribution patching: every cell's effect estimated from one gradient, with its error measured beside it.

*AtP* (Nanda 2023, "Attribution Patching"): effect ≈ (other value - value) · gradient, two forward passes and one
backward for any number of cells. *AtP\\** (Kramár et al. 2024, "AtP*", section 3) mends two kinds of false
negatives: queries and keys go through the exact softmax (`qk`), and effects that cancel between paths are
told by taking the gradient again and again with one layer's contribution dropped (GradDrop).

A gradient knows one point. So a random sample of cells is patched exactly, and cells whose slope elsewhere on the
way to the other value is much larger than here are flagged as saturated. Estimates are for finding
candidates; effects are what `noising`, `denoising` and `re_estimate` measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import patch
from prosect.model.patching.accuracy import NEGLIGIBLE, Accuracy, accuracy, exact_effects
from prosect.model.patching.cells import Candidate, Donor, there
from prosect.model.patching.contraction import Cells, Fix
from prosect.model.patching.gradients import Graph
from prosect.model.patching.metrics import Metric
from prosect.model.patching.nodes import Each, Node, nodes_of
from prosect.model.patching.pairs import Alignment, Direction, Pairs, Positions
from prosect.model.patching.scores import Cost, RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

Rule = Callable[["Model"], AbstractContextManager[object]]
"""A backward rule (`prosect.model.backward`)."""
POINTS = (0.5, 1.0)
"""Where else on the way to the other value the slope is taken, to tell saturation."""
SLOPE = 0.25
"""A cell is saturated where its slope here is under this share of its slope at one of those points."""


@dataclass(frozen=True)
class AtpCell:
    """One cell.

    Attributes:
        node, position: which.
        estimate: first-order effect, mean over rows; its interval is about rows, not about the error of the
            approximation, which is `AtpMap.accuracy`.
        magnitude: for AtP*, the size of the effect with GradDrop; None for AtP.
        saturated: whether the slope elsewhere is much larger; None where that was not looked at.
    """

    node: str
    position: str
    estimate: Measured
    magnitude: Measured | None
    saturated: bool | None


@dataclass(frozen=True, eq=False)
class AtpMap:
    """Estimated effects, node by position.

    Attributes:
        method: AtP or AtP*.
        direction: which run is patched.
        nodes, positions: the axes.
        estimates: (nodes, positions, rows): first-order change of the metric; with the QK fix for AtP*.
        magnitude: (nodes, positions, rows): mean absolute estimate over dropped layers, for AtP*.
        mismatched: (nodes, positions, rows): estimates with an unrelated row's values, or None.
        saturated: (nodes, positions), or None where it was not looked at.
        accuracy: of the estimates' means over rows, against exact patching of a random sample of cells.
        size: the same for ``magnitude`` against mean absolute effects.
        base, other: (rows,): the metric on both runs.
        cost: of the estimates; ``checking`` is that of sample and flags.
        notes: what was decided.
        digests, what, wanted: as in `PatchMap`, for `re_estimate`.
    """

    method: Literal["AtP", "AtP*"]
    direction: Direction
    nodes: tuple[str, ...]
    positions: tuple[str, ...]
    estimates: RowScores = field(repr=False)
    magnitude: RowScores | None = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    saturated: Bool[np.ndarray, "nodes positions"] | None = field(repr=False)
    accuracy: Accuracy
    size: Accuracy | None
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    cost: Cost
    checking: Cost
    notes: tuple[str, ...]
    digests: frozenset[str] = field(repr=False)
    what: tuple[Node, ...] = field(repr=False)
    wanted: Positions = field(repr=False)

    def table(self) -> tuple[AtpCell, ...]:
        """Every cell."""
        out = []
        for i, node in enumerate(self.nodes):
            for j, position in enumerate(self.positions):
                size = None if self.magnitude is None else self.magnitude.measured(i, j)
                flag = None if self.saturated is None else bool(self.saturated[i, j])
                out.append(AtpCell(node, position, self.estimates.measured(i, j), size, flag))
        return tuple(out)

    def top(self, k: int = 10) -> tuple[Candidate, ...]:
        """The cells with the largest estimate, or magnitude for AtP*: candidates for exact patching."""
        mean = (self.estimates if self.magnitude is None else self.magnitude).mean
        order = np.argsort(-np.abs(np.nan_to_num(mean)), axis=None, kind="stable")
        found = (np.unravel_index(index, mean.shape) for index in order[:k])
        return tuple(
            Candidate(self.nodes[i], self.positions[j], float(mean[i, j]))
            for i, j in found
            if np.isfinite(mean[i, j])
        )


def attribution_patching(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    sites: str | Sequence[str],
    *,
    star: bool = False,
    direction: Direction = "noising",
    positions: Positions = "each",
    each: Each = "site",
    alignment: Alignment | None = None,
    rule: Rule | None = None,
    sample: int = 64,
    saturation: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> AtpMap:
    """Estimate the effect of patching every cell from gradients (AtP), and measure how good the estimates are.

    Args:
        star: AtP*: the QK fix for nodes of ``q`` and ``k``, and magnitudes by GradDrop.
        rule: a backward rule to take the gradient under.
        sample: cells to patch exactly, drawn at random; all, if there are not more.
        saturation: look for saturated cells, which costs a forward and a backward pass for each site and point.
        others: as for `noising`.

    Raises:
        Unsupported: a quantised model, a site that no gradient reaches; QK fix or GradDrop on a model
            without the sites that they need.
        BadInput: a metric without gradient, or with none where the run is, such as a divergence from it.
        Otherwise as `noising`.
    """
    if sample < 2:
        raise BadInput(f"a sample of {sample} cells", "at least 2, to say how good the estimates are")
    pairs = Pairs.of(model, clean, corrupted, alignment)
    nodes, spans = nodes_of(model, sites, each), pairs.spans(positions)
    names = list(dict.fromkeys(node.site for node in nodes))
    base, root = pairs.base(direction), Seed(seed)
    cells = Cells(nodes, [(span, pairs.in_base(span, direction)) for span in spans], len(pairs))
    donor = Donor.of(model, pairs, direction, names)
    strangers = pairs.strangers(root)
    foreign = None if strangers is None else donor.from_rows(strangers.tolist())

    other_run = model.run(pairs.donor(direction))
    other = metric(other_run.output, other_run.batch).detach()
    fixed = [n for n in names if star and model.sites.site(n).kind in ("q", "k")]
    layers = sorted({int(model.sites.site(n).layer or 0) for n in fixed})
    inside = [f"{kind}.{i}" for i in layers for kind in ("q", "k", "probs", "scores")]
    drops = _layers(model) if star else []
    with nullcontext() if rule is None else rule(model):
        graph = Graph(model, base, metric, [*names, *inside], also=[s for d in drops for s in d])
        graph.refuse_flat(other_run.output, other - graph.scores)
        gradients = graph.gradients(keep=bool(drops))
        dropped = [graph.gradients(drop, keep=drop is not drops[-1]) for drop in drops]

    scored = []
    for source in [donor] if foreign is None else [donor, foreign]:
        fix = Fix.of(model, base, source, graph, fixed, layers) if fixed else None
        scored.append((cells.contract(source, graph.values, gradients, fix), fix))
    estimates, fix = scored[0]
    magnitude = None
    if drops:
        each_drop = [np.abs(cells.contract(donor, graph.values, g, fix)) for g in dropped]
        magnitude = np.sum(each_drop, axis=0) / max(1, len(drops) - 1)
    flags, spent = None, Cost()
    if saturation:
        flags, spent = _saturated(
            model, base, metric, cells, donor, graph.values, pairs, direction, estimates, fix
        )

    has = there(spans, None)
    shown = np.where(has, estimates, np.nan)

    def rows(values: np.ndarray) -> RowScores:
        return RowScores(values, pairs.clean.units, root.child("rows"))

    population = [(i, j) for i in range(len(nodes)) for j in range(len(spans)) if has[j].any()]
    drawn = root.child("sample").numpy().permutation(len(population))[:sample]
    picked = [population[i] for i in sorted(drawn)]
    exact = exact_effects(
        model, metric, pairs, direction, donor, [(nodes[i], spans[j]) for i, j in picked], budget_mb
    )
    exact = np.where(np.stack([np.broadcast_to(has[j], (len(pairs),)) for _, j in picked]), exact, np.nan)
    of = tuple(np.array(picked).T)
    strange = None if foreign is None else np.nanmean(np.where(has, scored[1][0], np.nan)[of], axis=-1)
    checked = root.child("accuracy")
    good = accuracy(
        np.nanmean(shown[of], axis=-1), np.nanmean(exact, axis=-1), strange, len(population), checked
    )
    size = None
    if magnitude is not None:
        sizes = np.nanmean(np.where(has, magnitude, np.nan)[of], axis=-1)
        size = accuracy(sizes, np.nanmean(np.abs(exact), axis=-1), None, len(population), checked)
    extra = len(scored) * sum(any(n[0] == kind for n in fixed) for kind in "qk")
    return AtpMap(
        "AtP*" if star else "AtP",
        direction,
        tuple(map(str, nodes)),
        tuple(span.label for span in spans),
        rows(shown),
        None if magnitude is None else rows(np.where(has, magnitude, np.nan)),
        None if foreign is None else rows(np.where(there(spans, foreign.stranger), scored[1][0], np.nan)),
        flags,
        good,
        size,
        rows(graph.scores.double().cpu().numpy()),
        rows(other.double().cpu().numpy()),
        Cost(forward=3 + extra, backward=1 + len(drops)),
        Cost(forward=len(picked) + 1) + spent,
        _notes(rule, fixed, foreign is not None),
        frozenset(pairs.digests),
        nodes,
        positions,
    )


def _layers(model: Model) -> list[list[str]]:
    """For each layer, the contributions through which GradDrop lets no gradient."""
    out = []
    for i in range(model.n_layers or 0):
        out.append([s for s in (f"attn_out_post.{i}", f"mlp_out_post.{i}") if s in model.sites])
    if not out or not all(out):
        raise Unsupported(
            f"GradDrop in {model.name}", "a model whose layers' contributions have names", "star=False"
        )
    return out


def _saturated(
    model: Model,
    base: Batch,
    metric: Metric,
    cells: Cells,
    donor: Donor,
    own: dict[str, Tensor],
    pairs: Pairs,
    direction: Direction,
    estimates: Float[np.ndarray, "nodes spans rows"],
    fix: Fix | None,
) -> tuple[Bool[np.ndarray, "nodes spans"], Cost]:
    """Cells whose slope here is far below their slope on the way to the other value.

    At each point a whole site is moved part of the way, one site at a time. Where the softmax is computed
    exactly, the slope is that of what comes behind it.
    """
    at = None if pairs.columns is None or pairs.complete else pairs.in_base(pairs.spans("all")[0], direction)
    here, elsewhere = np.abs(estimates).mean(axis=-1), np.zeros(estimates.shape[:2])
    sites = list(dict.fromkeys(node.site for node in cells.nodes))
    for site in sites:
        mine = [i for i, node in enumerate(cells.nodes) if node.site == site]
        some = Cells(tuple(cells.nodes[i] for i in mine), cells.spans, cells.rows)
        for point in POINTS:
            value = own[site] + point * (donor.values[site] - own[site])
            edit = patch(site, value) if at is None else patch(site, value, positions=at)
            inside = [f"probs.{site.partition('.')[2]}"] if fix is not None and site in fix.sites else []
            slopes = Graph(model, base, metric, [site, *inside], [edit]).gradients()
            found = np.abs(some.contract(donor, own, slopes, fix)).mean(axis=-1)
            elsewhere[mine] = np.maximum(elsewhere[mine], found)
    floor = NEGLIGIBLE * elsewhere.max(initial=0.0)
    passes = len(sites) * len(POINTS)
    return (here < SLOPE * elsewhere) & (elsewhere > floor), Cost(passes, passes)


def _notes(rule: Rule | None, fixed: Sequence[str], controlled: bool) -> tuple[str, ...]:
    out = []
    if rule is not None:
        out.append(f"gradients under the backward rule {getattr(rule, '__name__', type(rule).__name__)}")
    if fixed:
        out.append(f"exact softmax for {', '.join(fixed)}")
    if not controlled:
        out.append("no control: all rows are of one unit")
    return tuple(out)
