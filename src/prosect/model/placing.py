"""Where in a block each site lies: before, at or after the mixing of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from prosect.core.errors import Unsupported
from prosect.model.apply import Bound, positions_of
from prosect.model.cone import At, Change
from prosect.model.sitemap import Place
from prosect.model.sites import KINDS

if TYPE_CHECKING:
    from prosect.model.model import Model

_AT: dict[str, At] = {
    "attn_in": "mix",
    "k": "mix",
    "v": "mix",
    "q": "point",
    "scores": "point",
    "probs": "point",
    "z": "point",
    "attn_out": "point",
    "attn_out_post": "point",
    "resid_mid": "point",
    "mlp_in": "point",
    "mlp_act": "point",
    "mlp_out": "point",
    "mlp_out_post": "point",
    "final_norm": "point",
}


@dataclass(frozen=True)
class Placing:
    """Which places of a model can be edited in a part of a pass.

    Attributes:
        at: place → block, and where in it.
        layers: number of blocks.
        causal: whether no position sees a later one.
        table: the token embedding, where something lies between it and the first block; else None.
        unproved: kinds of sites whose edits did not give what whole passes give.
    """

    at: dict[Place, tuple[int, At]]
    layers: int
    causal: bool
    table: Place | None = None
    unproved: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of_model(cls, model: Model, blocks: Sequence[nn.Module], causal: bool) -> Placing:
        """Read it off the map of sites."""
        at: dict[Place, tuple[int, At]] = {}
        for name in model.sites.names():
            site = model.sites.site(name)
            place = model.sites.entry(site).place
            if site.kind in _AT:
                found: tuple[int, At] = (len(blocks) if site.layer is None else site.layer, _AT[site.kind])
                # one tensor read by attention and MLP alike changes what attention mixes
                if place not in at or at[place][1] != "mix":
                    at[place] = found
        for layer, block in enumerate(blocks):
            at[Place(block, "in")] = (layer, "stream")
            at[Place(block, "out")] = (layer + 1, "stream")
        first = model.sites.entry(model.sites.site("resid_pre.0")).place
        at[first] = (0, "stream")
        table = (
            model.sites.entry(model.sites.site("embeddings")).place if "embeddings" in model.sites else None
        )
        if table is not None and table not in at:
            at[table] = (0, "stream")
            return cls(at, len(blocks), causal, table)
        return cls(at, len(blocks), causal)

    def of(self, bound: Bound) -> tuple[int, At]:
        """The block of an edit and where in it.

        Raises:
            Unsupported: it is made outside the blocks, at one of several calls, or to a whole tensor at once.
        """
        site, place = bound.site, bound.entry.place
        if bound.edit.op == "replace":
            raise Unsupported("a function in a part of a pass", "a value: a function sees all positions")
        what = f"an edit of {site.kind if site.kind in KINDS else site.base} in a part of a pass"
        if site.call is not None or site.conditional or place not in self.at:
            raise Unsupported(what, "a named site within the blocks that runs once")
        if site.kind in self.unproved:
            raise Unsupported(what, "a site where it gave what a whole pass gives on the model's example")
        return self.at[place]

    def changes(self, edits: Sequence[Bound], total: int, mask: np.ndarray) -> dict[int, tuple[Change, ...]]:
        """What a list of edits does to each row that it touches.

        Args:
            edits: of one list.
            total: rows of the batch.
            mask: real positions, (rows, positions).

        Raises:
            Unsupported: see `of`.
        """
        out: dict[int, list[Change]] = {}
        for bound in edits:
            layer, at = self.of(bound)
            for row, chosen in positions_of(bound, total):
                real = mask[row].nonzero()[0]
                columns = real if chosen is None else np.unique(real[list(chosen)])
                out.setdefault(row, []).append(Change(layer, at, tuple(int(c) for c in columns)))
        return {row: tuple(found) for row, found in out.items()}
