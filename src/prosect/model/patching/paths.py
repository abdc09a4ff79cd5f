"""Path patching: the effect of one part on another along chosen edges, and nothing else.

*Exact edges*: a reader is given the stream that it had, plus what chosen writers write differently in the other
run; what it makes of that is put there, and the rest of the network goes on from it. *Frozen others* (Wang et
al. 2022, "Interpretability in the Wild", appendix B; Goldowsky-Dill et al. 2023, "Localizing Model Behavior
with Path Patching"): the sender is patched while every other head is held at what it had; what receivers make of
the stream is recorded, then only that is put there. Whether MLPs count as part of the path changes the circuit, so
it has to be said. With MLPs held too, the two forms are the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.records import Measured
from prosect.model.edits import Edit, patch
from prosect.model.patching.captures import captures
from prosect.model.patching.cells import ALONE, Candidate, Donor
from prosect.model.patching.edges import (
    Differences,
    Edge,
    Reader,
    Writer,
    readers_of,
    writers_of,
)
from prosect.model.patching.metrics import Metric, measured_by
from prosect.model.patching.pairs import Alignment, Direction, Positions
from prosect.model.patching.scores import Cost, RowScores
from prosect.model.patching.setting import Setting

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

AT_ONCE = 64
"""Sets of edges whose readers' values are held in memory at a time."""


@dataclass(frozen=True)
class PathCell:
    """One path.

    Attributes:
        name: of the path.
        edges: what it is made of.
        effect: metric with the path patched minus metric without.
        share: as a share of the gap between the runs.
        mismatched: the effect with differences of an unrelated row.
    """

    name: str
    edges: tuple[Edge, ...]
    effect: Measured
    share: Measured
    mismatched: Measured


@dataclass(frozen=True, eq=False)
class PathEffects:
    """Effects of paths.

    Attributes:
        direction: which run is patched.
        form: ``edges`` or ``frozen others``.
        through_mlps: for frozen others, whether MLPs on the way pass the change on; None for edges, which
            have nothing on the way.
        paths: name → its edges; sender and receivers for frozen others.
        effects: (paths, rows).
        mismatched: the control, or None where there was no unrelated row.
        base, other: (rows,): the metric on both runs.
        cost: of all of it.
        notes: what was decided.
    """

    direction: Direction
    form: Literal["edges", "frozen others"]
    through_mlps: bool | None
    paths: Mapping[str, tuple[Edge, ...]]
    effects: RowScores = field(repr=False)
    mismatched: RowScores | None = field(repr=False)
    base: RowScores = field(repr=False)
    other: RowScores = field(repr=False)
    cost: Cost
    notes: tuple[str, ...] = ()

    def effect(self, name: str) -> Measured:
        """Of one path."""
        if name not in self.paths:
            raise BadInput(f"path {name!r}", f"one of {', '.join(list(self.paths)[:6])} ...")
        return self.effects.measured(list(self.paths).index(name))

    def table(self) -> tuple[PathCell, ...]:
        """Every path."""
        gap, out = self.other.values - self.base.values, []
        for i, (name, edges) in enumerate(self.paths.items()):
            control = Measured(estimate=None, note=ALONE)
            if self.mismatched is not None:
                control = self.mismatched.measured(i)
            share = self.effects.share(i, of=gap)
            out.append(PathCell(name, edges, self.effects.measured(i), share, control))
        return tuple(out)

    def top(self, k: int = 10) -> tuple[Candidate, ...]:
        """The paths whose explored effect is largest either way: candidates, not estimates."""
        mean, names = np.nan_to_num(self.effects.mean), list(self.paths)
        order = np.argsort(-np.abs(mean), kind="stable")[:k]
        return tuple(Candidate(names[i], "all", float(mean[i])) for i in order)


def edge_effects(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    paths: Mapping[str, Sequence[Edge]] | None = None,
    *,
    writers: Sequence[str] | None = None,
    readers: Sequence[str] | None = None,
    direction: Direction = "noising",
    positions: Positions = "all",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> PathEffects:
    """Exact effects of edges, or of sets of edges patched at once.

    Costs one pass for each reader's stream and writer, which stops there, and one for each path.

    Args:
        paths: name → edges; without it every edge from ``writers`` to ``readers`` is a path, named
            ``writer > reader``.
        writers, readers: names (`edges.writers_of`, `edges.readers_of`); all of them by default.
        positions: one set of positions, at which writers' differences count.
        others: as for `noising`, whose errors these are.

    Raises:
        BadInput: a reader that comes before its writer, no edge at all.
        Unsupported: a model without a residual stream whose sites are named.
    """
    found, reading = writers_of(model, writers), readers_of(model, readers)
    if paths is None:
        streams = list(dict.fromkeys(r.stream for r in reading))
        ordered = [(w, r) for s in streams for w in found for r in reading if r.stream == s and r.after(w)]
        paths = {f"{w.name} > {r.name}": [(w.name, r.name)] for w, r in ordered}
    made = {name: _edges(model, edges) for name, edges in paths.items()}
    if not made or not all(made.values()):
        raise BadInput("no edges", "at least one edge from a writer to a reader behind it")
    given = Setting.of(
        model, clean, corrupted, metric, direction, positions, alignment, control, seed, budget_mb
    )
    every = list({w.name: w for w, _ in chain(*made.values())}.values())
    scores, passes = [], 0
    for donor in given.donors([w.node.site for w in every]):
        differences = Differences(model, given.base, donor, given.at, every)
        rows, more = _edge_scores(given, differences, list(made.values()))
        scores.append(rows)
        passes += more + differences.passes
    named = {name: tuple((w.name, r.name) for w, r in edges) for name, edges in made.items()}
    return _effects(given, "edges", None, named, scores, passes)


def path_patching(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    senders: Sequence[str] | None,
    receivers: Sequence[str],
    *,
    through_mlps: bool,
    direction: Direction = "noising",
    positions: Positions = "all",
    alignment: Alignment | None = None,
    control: bool = True,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> PathEffects:
    """For each sender, its effect through the receivers, with all other heads frozen.

    Costs two passes for each sender, the first of which stops at the receivers.

    Args:
        senders: names of writers; all by default.
        receivers: names of readers, replaced together.
        through_mlps: whether MLPs between sender and receivers pass the change on, as part of the path, or
            are frozen like the heads.
        positions: one set of positions, at which senders are patched.
        others: as for `noising`, whose errors these are.

    Raises:
        BadInput: no receiver, or none behind a sender.
        Unsupported: a model without a residual stream whose sites are named.
    """
    sending, receiving = writers_of(model, senders), readers_of(model, receivers)
    if not receiving:
        raise BadInput("no receivers", "at least one", "receivers=['output']")
    if senders is None:
        sending = tuple(w for w in sending if any(r.after(w) for r in receiving))
    blind = [w.name for w in sending if not any(r.after(w) for r in receiving)]
    if blind or not sending:
        raise BadInput(
            f"sender {blind[0] if blind else 'none'}, which no receiver is behind", "an earlier sender"
        )
    given = Setting.of(
        model, clean, corrupted, metric, direction, positions, alignment, control, seed, budget_mb
    )
    held = _held(model, through_mlps)
    own = dict(model.run(given.base, list(dict.fromkeys(chain(*held)))).values)
    sites = list(dict.fromkeys(r.stream if r.node is None else r.node.site for r in receiving))
    scores, passes = [], 1
    for donor in given.donors([w.node.site for w in sending]):
        lists = [_frozen(w, donor, held, own, given.at) for w in sending]
        swept = []
        for writer, got in zip(sending, captures(model, given.base, lists, sites), strict=True):
            swept.append([_put(r, got) for r in receiving if r.after(writer)])
        scores.append(given.sweep(swept))
        passes += 2 * len(lists)
    named = {w.name: tuple((w.name, r.name) for r in receiving if r.after(w)) for w in sending}
    return _effects(given, "frozen others", through_mlps, named, scores, passes)


def _effects(
    given: Setting,
    form: Literal["edges", "frozen others"],
    through_mlps: bool | None,
    paths: Mapping[str, tuple[Edge, ...]],
    scores: Sequence[np.ndarray],
    passes: int,
) -> PathEffects:
    base, other = (
        measured_by(given.model, batch, given.metric, given.budget_mb).numpy()
        for batch in (given.base, given.pairs.donor(given.direction))
    )
    return PathEffects(
        given.direction,
        form,
        through_mlps,
        paths,
        given.rows(scores[0]),
        given.rows(scores[1]) if len(scores) > 1 else None,
        given.rows(base),
        given.rows(other),
        Cost(forward=passes + 3),
        given.notes,
    )


def _edges(model: Model, edges: Sequence[Edge]) -> list[tuple[Writer, Reader]]:
    out = []
    for writer, reader in edges:
        (w,), (r,) = writers_of(model, [writer]), readers_of(model, [reader])
        if not r.after(w):
            raise BadInput(f"the edge {writer} > {reader}", "a reader that comes after its writer")
        out.append((w, r))
    return out


def _edge_scores(
    given: Setting, differences: Differences, sets: Sequence[Sequence[tuple[Writer, Reader]]]
) -> tuple[np.ndarray, int]:
    """Effects of sets of edges, (sets, rows), and how many passes they took."""
    model, out, passes = given.model, [], 0
    streams = list(dict.fromkeys(r.stream for edges in sets for _, r in edges))
    own = model.run(given.base, streams)
    for start in range(0, len(sets), AT_ONCE):
        some = sets[start : start + AT_ONCE]
        wanted: dict[tuple[str, tuple[str, ...]], Tensor] = {}
        sites: dict[str, set[str]] = {}
        of: list[list[tuple[Reader, tuple[str, tuple[str, ...]]]]] = []
        for edges in some:
            reads: dict[Reader, list[Writer]] = {}
            for writer, reader in edges:
                reads.setdefault(reader, []).append(writer)
            of.append([])
            for reader, writing in reads.items():
                key = (reader.stream, tuple(sorted({w.name for w in writing})))
                if key not in wanted:
                    wanted[key] = own[reader.stream] + differences(*writing)
                if reader.node is not None:
                    sites.setdefault(reader.stream, set()).add(reader.node.site)
                of[-1].append((reader, key))
        got: dict[tuple[str, tuple[str, ...]], dict[str, Tensor]] = {}
        for stream, names in sites.items():
            keys = [key for key in wanted if key[0] == stream]
            lists = [[patch(stream, wanted[key])] for key in keys]
            got |= zip(keys, captures(model, given.base, lists, sorted(names)), strict=True)
            passes += len(lists)
        swept = [[_put(r, {**got.get(key, {}), r.stream: wanted[key]}) for r, key in reads] for reads in of]
        out.append(given.sweep(swept))
        passes += len(swept) + 1
    return np.concatenate(out), passes


def _put(reader: Reader, got: Mapping[str, Tensor]) -> Edit:
    """What a reader made of its stream, put there."""
    if reader.node is None:
        return patch(reader.stream, got[reader.stream])
    edit = reader.node.edit(got[reader.node.site])
    assert edit is not None
    return edit


def _held(model: Model, through_mlps: bool) -> list[list[str]]:
    """For each layer, the sites that are frozen, attention first."""
    out = []
    for layer in range(model.n_layers or 0):
        attention = f"z.{layer}" if f"z.{layer}" in model.sites else f"attn_out_post.{layer}"
        sites = [attention, *([] if through_mlps else [f"mlp_out_post.{layer}"])]
        out.append([name for name in sites if name in model.sites])
    return out


def _frozen(
    sender: Writer,
    donor: Donor,
    held: Sequence[Sequence[str]],
    own: Mapping[str, Tensor],
    at: Sequence[Sequence[int]] | None,
) -> list[Edit]:
    """Everything behind the sender held at what it had, then the sender patched."""
    edits = [patch(name, own[name]) for sites in held[max(sender.order[0], 0) :] for name in sites]
    edit = sender.node.edit(donor.values[sender.node.site], at)
    if sender.order[0] < 0 and edit is not None:
        return [edit, *edits]
    return edits if edit is None else [*edits, edit]
