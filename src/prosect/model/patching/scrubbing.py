"""Causal scrubbing: whatever a hypothesis calls irrelevant is taken from other inputs, and what is left is measured.

A hypothesis names places, what each stands for, and which it is computed from. A place may then be given what it has
on any input for which it stands for the same, computed in turn from places that were given such values; everything
else is taken from inputs drawn at random (Chan et al. 2022, "Causal scrubbing: a method for rigorously testing
interpretability hypotheses"). If the hypothesis is right, the behaviour stays.

That it stays is not enough. A hypothesis that tells all inputs apart changes nothing and always passes: `unchanged` is
the share of values that came from the very row they were put into. And errors may cancel: what is found holds for
the behaviour as the metric sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.core.markup import card
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.model.patching.metrics import Metric
from prosect.model.patching.nodes import Node, nodes_of
from prosect.model.patching.scores import RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

Rows = Int[np.ndarray, " rows"]
SPECIFIC = 0.5
"""From this share of values on that came from their own row, a warning says that little was tested."""


@dataclass(frozen=True)
class Meaning:
    """One node of a hypothesis.

    Attributes:
        place: a site, head or unit, as `nodes_of` takes them.
        label: batch → what the place stands for in each row; rows of the same label may stand in for each other.
            None for a place that stands for no less than the whole row.
        of: names of the nodes that it is computed from; none for one that is taken as it is on another input.
        positions: where it is; None for every position.
    """

    place: str
    label: Callable[[Batch], Sequence[Any]] | None = None
    of: tuple[str, ...] = ()
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Scrubbed:
    """What is left of a behaviour.

    Attributes:
        recovered: (scrubbed − random) / (original − random), with an interval over independent units: 1 where nothing
            is lost, 0 where the output might as well be another row's.
        control: the same for the account with every label permuted over rows: what its form alone recovers.
        original, scrubbed, random: the metric of each row; the last two are means over draws.
        unchanged: share of values that came from the row they were put into; at 1 nothing was tested.
        bits: what each node's label tells of a row, of log2(rows) bits that there are to tell.
        passes: of the model over all rows, for one draw.
        draws: how often everything was drawn.
        notes: warnings.
    """

    recovered: Measured
    control: Measured
    original: RowScores = field(repr=False)
    scrubbed: RowScores = field(repr=False)
    random: RowScores = field(repr=False)
    unchanged: float
    bits: Mapping[str, float]
    passes: int
    draws: int
    notes: tuple[str, ...]

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            ("recovered", self.recovered),
            ("control, labels permuted", self.control),
            ("values from the row itself", f"{self.unchanged:.0%}"),
        ]
        rows += [(f"bits of {name}", f"{bits:.2g}") for name, bits in self.bits.items()]
        return card("causal scrubbing", rows, "; ".join(self.notes))


def scrub(
    model: Model,
    batch: Inputs,
    metric: Metric,
    account: Mapping[str, Meaning],
    of: Sequence[str],
    *,
    draws: int = 4,
    seed: int = 0,
) -> Scrubbed:
    """Take all that an account calls irrelevant from other rows, and see what is left of the metric.

    What is not listed belongs to the edges: a listed place reaches another through everything between them that is
    not listed, and all of that is otherwise computed from a row drawn at random. A listed place that a node is not
    computed from has the value of yet another row, so that no path leads through it.

    Args:
        model: what is run.
        batch: the distribution: rows of equal length, from which everything that is put in is drawn.
        metric: output and rows → one number for each row, which looks for that row's own answer.
        account: nodes by name.
        of: the nodes that the output is computed from.
        draws: how often to draw; each draw costs ``passes`` passes of all rows, and as many for the control.
        seed: of the draws and the intervals.

    Raises:
        UnknownName: a node of which another is said to be computed is not there; no such site or head.
        BadInput: an account that goes round in a circle, no draw, fewer than two rows, labels that do not fit.
        ShapeMismatch: rows of several lengths, a metric that does not give one number for each row.
        NotFinite: NaN or infinity on the way.
    """
    rows = model.batch(batch)
    if draws < 1 or len(rows) < 2:
        raise BadInput(f"{draws} draws of {len(rows)} rows", "at least 1, of at least 2 rows")
    if rows.mask is not None and len(set(rows.lengths.tolist())) > 1:
        raise ShapeMismatch(
            "rows of several lengths", "rows of equal length, which can stand in for each other"
        )
    root = Seed(seed).child("scrub")
    places = {name: _place(model, name, meaning) for name, meaning in account.items()}
    reached = _reached(account, tuple(of))
    labels = {name: _codes(name, account[name], rows) for name in account}
    mixed = {n: root.child("mixed", n).numpy().permutation(codes) for n, codes in labels.items()}
    trace = model.run(rows, list(dict.fromkeys(p.site for p in places.values())))
    clean = {name: trace[p.site] for name, p in places.items()}
    original = _checked(metric(trace.output, rows), len(rows))
    own = _Scrub(model, rows, metric, account, tuple(of), places, clean, labels)
    other = _Scrub(model, rows, metric, account, tuple(of), places, clean, mixed)
    found = own.several(draws, root.child("own"))
    control = other.several(draws, root.child("control"))
    drawn = [root.child("random", d).numpy().permutation(len(rows)) for d in range(draws)]
    random = np.mean(
        [_checked(metric(trace.output[torch.from_numpy(o)], rows), len(rows)) for o in drawn], axis=0
    )

    def scores(values: Float[np.ndarray, " rows"]) -> RowScores:
        return RowScores(values, rows.units, root.child("rows"))

    unchanged = own.same / max(own.put, 1)
    notes = []
    if unchanged > SPECIFIC:
        notes.append(
            f"{unchanged:.0%} of the values came from the row itself: the account is hardly tested here"
        )
    missing = [name for name in account if name not in reached]
    if missing:
        notes.append(f"{', '.join(missing)}: nothing is computed from it, so it only has random values")
    return Scrubbed(
        scores(found - random).share(of=original - random),
        scores(control - random).share(of=original - random),
        scores(original),
        scores(found),
        scores(random),
        unchanged,
        {name: _bits(codes) for name, codes in labels.items()},
        own.passes // draws,
        draws,
        tuple(notes),
    )


class _Scrub:
    """One account with its labels, and what has been drawn for it."""

    def __init__(
        self,
        model: Model,
        rows: Batch,
        metric: Metric,
        account: Mapping[str, Meaning],
        of: tuple[str, ...],
        places: Mapping[str, Node],
        clean: Mapping[str, Tensor],
        labels: Mapping[str, Rows],
    ) -> None:
        self.model, self.rows, self.metric = model, rows, metric
        self.account, self.of, self.places, self.clean = account, of, places, clean
        self.alike = {
            n: {c: np.flatnonzero(codes == c) for c in np.unique(codes)} for n, codes in labels.items()
        }
        self.labels = labels
        self.passes = self.put = self.same = 0

    def several(self, draws: int, seed: Seed) -> Float[np.ndarray, " rows"]:
        """The metric of every row, mean over draws."""
        return np.asarray(np.mean([self._output(seed.child(d)) for d in range(draws)], axis=0))

    def _output(self, seed: Seed) -> Float[np.ndarray, " rows"]:
        every = np.arange(len(self.rows))
        edits = self._edits(self.of, None, every, seed)
        output = self._run((), edits, seed).output
        return _checked(self.metric(output, self.rows), len(self.rows))

    def _value(self, name: str, wanted: Rows, seed: Seed) -> tuple[Tensor, Rows]:
        """What a node has on inputs for which it stands for the same as on the rows that are wanted."""
        codes, alike = self.labels[name], self.alike[name]
        draw = seed.child("alike").numpy().random(len(wanted))
        chosen = np.array(
            [alike[codes[w]][int(u * len(alike[codes[w]]))] for w, u in zip(wanted, draw, strict=True)]
        )
        self.put, self.same = (
            self.put + len(chosen),
            self.same + int((chosen == np.arange(len(chosen))).sum()),
        )
        meaning = self.account[name]
        if not meaning.of:
            return self.clean[name][torch.from_numpy(chosen)], chosen
        edits = self._edits(meaning.of, name, chosen, seed)
        site = self.places[name].site
        return self._run((site,), edits, seed)[site], chosen

    def _edits(self, of: tuple[str, ...], me: str | None, wanted: Rows, seed: Seed) -> list[Edit]:
        """What a node is computed from, put in; and every other listed place from a row of its own."""
        edits = []
        for name, place in self.places.items():
            if name == me:
                continue
            if name in of:
                value, _ = self._value(name, wanted, seed.child(name))
            else:
                other = seed.child("irrelevant", name).numpy().integers(len(self.rows), size=len(self.rows))
                value = self.clean[name][torch.from_numpy(other)]
            positions = self.account[name].positions
            at = None if positions is None else [list(positions)] * len(self.rows)
            edit = place.edit(value, at)
            assert edit is not None  # every row has every position
            edits.append(edit)
        return edits

    def _run(self, capture: Sequence[str], edits: list[Edit], seed: Seed) -> Any:
        """A pass over rows drawn at random, from which everything comes that is not listed."""
        base = seed.child("base").numpy().integers(len(self.rows), size=len(self.rows))
        self.passes += 1
        return self.model.run(self.rows.select(base.tolist()), list(capture), edits, stop_early=bool(capture))


def _place(model: Model, name: str, meaning: Meaning) -> Node:
    found = nodes_of(model, meaning.place)
    if len(found) != 1:
        raise BadInput(
            f"{meaning.place} for {name!r}, which is {len(found)} places", "one site, head or unit"
        )
    return found[0]


def _reached(account: Mapping[str, Meaning], of: tuple[str, ...]) -> set[str]:
    """Every node that the output is computed from, directly or not."""
    out: set[str] = set()

    def walk(names: tuple[str, ...], path: tuple[str, ...]) -> None:
        for name in names:
            if name not in account:
                raise UnknownName("node", name, account)
            if name in path:
                raise BadInput(" → ".join((*path, name)), "an account that goes round in no circle")
            walk(account[name].of, (*path, name))
            out.add(name)

    for name in account:
        walk((name,), ())
    out.clear()
    walk(of, ())
    return out


def _codes(name: str, meaning: Meaning, rows: Batch) -> Rows:
    """A number for each row; equal where the labels are."""
    if meaning.label is None:
        return np.arange(len(rows))
    said = meaning.label(rows)
    given = [tuple(v.reshape(-1).tolist()) if isinstance(v, Tensor | np.ndarray) else v for v in said]
    if len(given) != len(rows):
        raise BadInput(f"{len(given)} labels of {name!r}", f"one for each of {len(rows)} rows")
    known = {label: i for i, label in enumerate(dict.fromkeys(given))}
    return np.array([known[label] for label in given])


def _bits(codes: Rows) -> float:
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(share * np.log2(share)).sum())


def _checked(values: Any, rows: int) -> Float[np.ndarray, " rows"]:
    if not isinstance(values, Tensor) or tuple(values.shape) != (rows,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeMismatch(f"{got} from the metric", f"({rows},): one number for each row")
    return np.asarray(values.detach().double().cpu().numpy())
