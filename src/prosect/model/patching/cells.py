"""What maps of cells have in common: where values come from, the edit of one cell, and cells that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from prosect.core.errors import TooLittleData
from prosect.model.edits import Edit
from prosect.model.patching.nodes import Node
from prosect.model.patching.pairs import Direction, Pairs, Span

if TYPE_CHECKING:
    from prosect.model.model import Model

ALONE = "not run: all rows are of one unit, so there is no unrelated row to take values from"


@dataclass(frozen=True)
class Candidate:
    """A cell chosen because its explored effect is large, which makes that figure too large on average.

    Attributes:
        node, position: which.
        explored: the figure it was chosen by; `re_estimate` measures the effect on rows not yet seen.
    """

    node: str
    position: str
    explored: float


@dataclass(frozen=True, eq=False)
class Donor:
    """What a run had at some sites, at the positions of the run that is patched."""

    values: dict[str, Tensor]
    stranger: list[int] | None = None

    @classmethod
    def of(cls, model: Model, pairs: Pairs, direction: Direction, sites: Sequence[str]) -> Donor:
        """One pass of the other run."""
        trace = model.run(pairs.donor(direction), sites)
        layouts = {name: model.sites.entry(model.sites.site(name)).info.layout for name in sites}
        return cls({name: pairs.moved(trace[name], layouts[name], direction, name) for name in sites})

    def from_rows(self, rows: Sequence[int]) -> Donor:
        """Each row given what another row had."""
        return Donor({name: value[list(rows)] for name, value in self.values.items()}, list(rows))


def cell_edit(node: Node, span: Span, pairs: Pairs, direction: Direction, donor: Donor) -> Edit | None:
    """The edit of one cell; rows that do not have it, or whose donor does not, are left alone."""
    keep = None
    if span.at is not None:
        rows = there([span], donor.stranger)[0]
        keep = [bool(k) for k in rows]
    return node.edit(donor.values[node.site], pairs.in_base(span, direction), keep)


def there(spans: Sequence[Span], strangers: Sequence[int] | None) -> Bool[np.ndarray, "spans _"]:
    """Which rows have a span, and whether their stranger has it too: (spans, rows)."""
    out = []
    for span in spans:
        if span.at is None:
            out.append(np.ones(1, dtype=bool))
            continue
        has = np.array([bool(at) for at in span.at])
        if strangers is not None:
            has &= np.array([set(at) <= set(span.at[j]) for at, j in zip(span.at, strangers, strict=True)])
        out.append(has)
    return np.stack(out)


def refuse_seen(digests: frozenset[str], pairs: Pairs) -> None:
    """Rows that chose a cell cannot also say how large its effect is.

    Raises:
        TooLittleData: some of these pairs are among them.
    """
    again = [row for row, d in enumerate(pairs.digests) if d in digests]
    if again:
        raise TooLittleData(
            f"{len(again)} pairs that the cells were chosen on, such as row {again[0]}", "pairs not yet seen"
        )
