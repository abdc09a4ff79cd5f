"""From gradients to cells: differences times slopes, added up over each node's part of its site and each span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.data.batch import Batch
from prosect.model.patching.cells import Donor
from prosect.model.patching.gradients import Graph
from prosect.model.patching.nodes import Node
from prosect.model.patching.pairs import Span
from prosect.model.patching.qk import of_keys, of_queries, patched_patterns

if TYPE_CHECKING:
    from prosect.model.model import Model


@dataclass(frozen=True, eq=False)
class Fix:
    """What the QK fix needs of both runs.

    Attributes:
        probs, scores: of the run that is patched, by layer.
        queries: probabilities with all queries patched; keys: scores with all keys patched.
    """

    sites: tuple[str, ...]
    probs: dict[int, Tensor]
    scores: dict[int, Tensor]
    queries: dict[int, Tensor]
    keys: dict[int, Tensor]

    @classmethod
    def of(
        cls,
        model: Model,
        batch: Batch,
        donor: Donor,
        graph: Graph,
        fixed: Sequence[str],
        layers: Sequence[int],
    ) -> Fix:
        own = graph.values
        found: dict[str, dict[int, Tensor]] = {"q": {}, "k": {}}
        for kind in ("q", "k"):
            mine = [i for i in layers if f"{kind}.{i}" in fixed]
            if mine:
                values = own | {f"other {kind}.{i}": donor.values[f"{kind}.{i}"] for i in mine}
                found[kind] = patched_patterns(model, batch, values, mine, kind)
        return cls(
            tuple(fixed),
            {i: own[f"probs.{i}"] for i in layers},
            {i: own[f"scores.{i}"] for i in layers},
            found["q"],
            found["k"],
        )


@dataclass(frozen=True, eq=False)
class Cells:
    """Nodes and spans, and how attributions of every entry are added up over them."""

    nodes: tuple[Node, ...]
    spans: list[tuple[Span, tuple[tuple[int, ...], ...] | None]]
    rows: int

    def contract(
        self, donor: Donor, own: dict[str, Tensor], slopes: dict[str, Tensor], fix: Fix | None
    ) -> Float[np.ndarray, "nodes spans rows"]:
        """(other value - value) · slope, added up over each node's part of its site and each span."""
        out = np.zeros((len(self.nodes), len(self.spans), self.rows))
        for site in dict.fromkeys(node.site for node in self.nodes):
            mine = [(i, node) for i, node in enumerate(self.nodes) if node.site == site]
            if fix is not None and site in fix.sites:
                parts = self._fixed(site, fix, slopes)
            else:
                product = ((donor.values[site] - own[site]).double() * slopes[site].double()).cpu()
                parts = self._summed(product, mine[0][1], any(n.unit is not None for _, n in mine))
            for i, node in mine:
                index = node.unit if node.head is None else node.head
                out[i] = (parts.sum(dim=-1) if index is None else parts[..., index]).numpy()
        return out

    def _summed(self, product: Tensor, node: Node, units: bool) -> Float[Tensor, "spans rows parts"]:
        """By span, row, and head or unit (one part for sites with neither)."""
        if node.layout == "pattern":
            product = product.sum(dim=-1).transpose(1, 2)
        elif node.layout == "module" or self.spans[0][1] is None:
            product = product if units else product.reshape(self.rows, -1).sum(dim=1, keepdim=True)
            flat = product.reshape(self.rows, -1, product.shape[-1]).sum(dim=1)
            return flat[None].expand(len(self.spans), *flat.shape)
        elif product.ndim == 4:
            product = product.sum(dim=-1)
        elif not units:
            product = product.sum(dim=-1, keepdim=True)
        return torch.einsum("srp,rpk->srk", self._chosen(product.shape[1]), product)

    def _chosen(self, positions: int) -> Float[Tensor, "spans rows positions"]:
        out = torch.zeros(len(self.spans), self.rows, positions, dtype=torch.float64)
        for s, (_, at) in enumerate(self.spans):
            for row, chosen in enumerate(at or ()):
                out[s, row, list(chosen)] = 1.0
        return out

    def _fixed(self, site: str, fix: Fix, slopes: dict[str, Tensor]) -> Float[Tensor, "spans rows parts"]:
        kind, _, number = site.partition(".")
        layer = int(number)
        probs, slope = fix.probs[layer], slopes[f"probs.{layer}"]
        if kind == "q":
            found = of_queries(probs, fix.queries[layer], slope).cpu()
            return torch.einsum("srp,rpk->srk", self._chosen(found.shape[1]), found)
        heads = slopes[site].shape[2]
        groups = probs.shape[1] // heads
        scores, keys = fix.scores[layer], fix.keys[layer]
        return torch.stack(
            [of_keys(scores, keys, probs, slope, at or (), groups).cpu() for _, at in self.spans]
        )
