"""What a study will run, before it runs it: passes of the model, in the units that the cost meter counts in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prosect.assay.spec import Spec
from prosect.data.batch import Batch
from prosect.decompose.objectives import OBJECTIVES
from prosect.model import Model
from prosect.model.edits import Edit
from prosect.model.run import reach
from prosect.model.sweep import FEWEST, expected


@dataclass(frozen=True)
class Extent:
    """How much there is of a part of the data."""

    rows: int
    positions: int

    @property
    def length(self) -> float:
        """Positions of a row, on average."""
        return self.positions / max(self.rows, 1)


@dataclass(frozen=True)
class Work:
    """Passes of one kind.

    Attributes:
        what: in words.
        rows: in whole passes of one row, as `Meter` counts them.
        length: positions of a row, on average.
        gradients: rows whose gradients are taken; the way back costs as much as two passes.
        flops: beyond passes of the model, such as a lens at every layer.
    """

    what: str
    rows: int | float
    length: int | float
    gradients: int | float = 0
    flops: int | float = 0


@dataclass(frozen=True)
class Planned:
    """What a study will do.

    Attributes:
        sites: that it reads or changes, in words.
        explore, test: its passes on explore, and on the folds beside the one that reads each of them.
        held: bytes of activations that it keeps or holds.
        most: the search may end sooner: these are upper bounds.
    """

    sites: str
    explore: Sequence[Work] = ()
    test: Sequence[Work] = ()
    held: int = 0
    most: bool = False


TRAINING = 6
"""A step of training a dictionary does three matrix products forward and backward, each of two FLOPs a weight."""


def fitting(spec: Spec, width: int, positions: int) -> float:
    """FLOPs of fitting a decomposition; those that are not trained step by step cost next to nothing."""
    if spec.decompose.kind not in OBJECTIVES:
        return 0.0
    return float(TRAINING * spec.decompose.width * width * max(spec.decompose.tokens, positions))


def tested(parts: Mapping[str, Extent], rounds: int | None = None) -> dict[str, Extent]:
    """The parts that claims are tested on: the folds of the first rounds, or of all, and the sealed split."""
    known = [f"validate.{i}" for i in range(rounds)] if rounds is not None else None
    return {
        p: e
        for p, e in parts.items()
        if p == "sealed" or (p.startswith("validate") and (known is None or p in known))
    }


def folds(parts: Mapping[str, Extent], rounds: int | None = None) -> Extent:
    """All parts that claims are tested on, as one; see `tested`."""
    some = tested(parts, rounds).values()
    return Extent(sum(e.rows for e in some), sum(e.positions for e in some))


def upto(model: Model, sites: Sequence[str]) -> float:
    """How much of a pass runs until the last of these sites was read; all of it where blocks mean nothing."""
    layers = model.n_layers
    return (
        max((reach(model.sites.site(s), layers) for s in sites), default=layers) / layers if layers else 1.0
    )


def behind(model: Model, site: str) -> float:
    """How much of a pass an edit at this site takes, which begins at the last block that it does not reach."""
    begin = model.before(site)
    return 1.0 if begin is None else 1.0 - (begin + 1) / (model.n_layers or 1)


def extent(batches: Iterable[Batch]) -> Extent:
    """Rows and positions of some batches."""
    rows = positions = 0
    for batch in batches:
        rows, positions = rows + len(batch), positions + batch.count
    return Extent(rows, positions)


def cell(model: Model, edits: Sequence[Edit], batch: Batch, reads: object = None) -> float:
    """What one more list of edits like this costs in a sweep over these rows, in whole passes of one row."""
    few, more = ([list(edits)] * n for n in (FEWEST, 2 * FEWEST))
    there = [expected(model, lists, batch, reads) for lists in (few, more)]  # type: ignore[arg-type]
    return (there[1] - there[0]) / FEWEST


def sample(batches: Sequence[Batch], rows: int = 4) -> Batch:
    """A few rows of typical length: those in the middle."""
    listed = [(int(b.lengths[i]), b, i) for b in batches for i in range(len(b))]
    order = np.argsort([length for length, _, _ in listed], kind="stable")
    middle = order[max(0, len(order) // 2 - rows // 2) :][:rows]
    return Batch.joined([listed[k][1].select([listed[k][2]]) for k in middle.tolist()])
