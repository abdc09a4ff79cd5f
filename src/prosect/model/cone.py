"""What an edit can reach: the causal cone, as sets of positions to compute in every block.

In a causal model a change at position p changes nothing before p, and nothing below the layer it is made at. A
row under a list of edits therefore needs, block by block: new queries, and with them the rest of the block, at
the positions that the changes so far have reached; new keys and values at the positions whose input has changed;
and for everything else what the pass without edits had. In the last block only what is read needs queries. A
change after the mixing of positions (a head's output, a neuron) stays at its own positions within its block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

At = Literal["stream", "mix", "point"]
"""Where in a block a change is made: to its input; before positions are mixed; after, or to one query alone."""

Columns = Int[np.ndarray, "_"]
NONE: Columns = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Change:
    """What edits at one place do to one row.

    Attributes:
        layer: the block; one past the last for the stream that leaves it and what comes after.
        at: where in it.
        columns: where in the row, sorted.
    """

    layer: int
    at: At
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Cone:
    """What to compute for one row under one list of edits.

    Attributes:
        queries: for each block, the columns that go all the way through.
        keys: for each block, further columns of which only keys and values are needed.
        tail: columns whose output differs from that of the pass without edits.
    """

    queries: tuple[Columns, ...]
    keys: tuple[Columns, ...]
    tail: Columns

    @property
    def enter(self) -> int:
        """The first block that is computed; their number if none is."""
        found = (i for i, (q, k) in enumerate(zip(self.queries, self.keys, strict=True)) if len(q) or len(k))
        return next(found, len(self.queries))

    @property
    def first(self) -> int:
        """The first column that is computed; 0 if none is."""
        return min((int(c[0]) for c in (*self.queries, *self.keys, self.tail) if len(c)), default=0)

    @property
    def tokens(self) -> Int[np.ndarray, " layers"]:
        """Columns computed in each block."""
        return np.array([len(q) + len(k) for q, k in zip(self.queries, self.keys, strict=True)])


def cone(
    changes: Iterable[Change], layers: int, length: int, reads: Columns | None = None, causal: bool = True
) -> Cone:
    """The cone of changes to one row.

    Args:
        changes: in any order.
        layers: number of blocks.
        length: columns of the row up to its last real one.
        reads: columns of the output that are read; None for all.
        causal: whether no position sees a later one; else a change reaches every position.
    """
    read = np.ones(length, dtype=bool)
    if reads is not None:
        read[:] = False
        read[reads] = True
    end = int(read.nonzero()[0].max()) + 1 if causal else length
    made: dict[tuple[int, At], np.ndarray] = {}
    for change in changes:
        marked = made.setdefault((change.layer, change.at), np.zeros(length, dtype=bool))
        marked[[c for c in change.columns if c < end]] = True
    nothing = np.zeros(length, dtype=bool)
    queries, keys = [], []
    stream = nothing
    for layer in range(layers):
        stream = stream | made.get((layer, "stream"), nothing)
        inputs = stream | made.get((layer, "mix"), nothing)
        reached = made.get((layer, "point"), nothing).copy()
        if inputs.any():
            reached[int(inputs.argmax()) if causal else 0 : end] = True
        if layer == layers - 1:
            reached &= read
        wanted = reached.any()
        queries.append(reached.nonzero()[0])
        keys.append((inputs & ~reached).nonzero()[0] if wanted else NONE)
        stream = reached
    tail = stream | made.get((layers, "stream"), nothing) | made.get((layers, "point"), nothing)
    out = Cone(tuple(queries), tuple(keys), (tail & read).nonzero()[0])
    return out if len(out.tail) else Cone((NONE,) * layers, (NONE,) * layers, NONE)
