"""Does a layered network fall into modules? Modularity of its graph of weights, against networks rewired at random.

Newman's Q (2004, "Analysis of weighted networks") of groups that are given, such as the neurons that each task needs,
or of the communities that Louvain's method finds (Blondel et al. 2008). Communities can be found in any sparse graph,
at a Q well above 0, so each is judged beside graphs in which every neuron has as many
connections into every layer as before, and as many weights of each size, and other ends: rewiring by swaps (Maslov &
Sneppen 2002, "Specificity and stability in topology of protein networks"), inside each layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed

SWAPS = 20
"""Swaps tried for each connection, many more than it takes to forget where it was."""


@dataclass(frozen=True)
class Modularity:
    """How modular a network is.

    Attributes:
        q: of the communities found; 0 without structure, below 1.
        null: the same of every rewired network.
        communities: of neurons (layer, number), inputs being layer 0, whether found or given; neurons without
            connections are in none.
    """

    q: float
    null: Float[np.ndarray, " draws"]
    communities: tuple[frozenset[tuple[int, int]], ...]

    @property
    def p(self) -> float:
        """Share of rewired networks as modular, with one added to both counts."""
        return float((1 + (self.null >= self.q - 1e-12).sum()) / (1 + len(self.null)))

    @property
    def excess(self) -> float:
        """Q less what rewired networks have on average."""
        return self.q - float(self.null.mean())


def modularity(
    weights: Sequence[Float[np.ndarray, "_ _"]],
    seed: Seed,
    edges: int | None = None,
    groups: Sequence[Int[np.ndarray, " _"]] | None = None,
    draws: int = 50,
) -> Modularity:
    """Q of a layered network and of its rewired nulls.

    Args:
        weights: of each layer in order, (to, from).
        seed: of Louvain's order and of the swaps.
        edges: how many of the largest weights count; all that are not 0 by default. Give both twins the same number.
        groups: of every neuron, for inputs and then each layer; they stay what they are while connections are
            rewired. Communities are found without.
        draws: rewired networks.

    Raises:
        ShapeMismatch: layers that do not fit together, or groups that do not fit them.
        TooLittleData: fewer than two connections, or no draws.
        BadInput: more ``edges`` than there are weights.
    """
    for a, b in itertools.pairwise(weights):
        if a.shape[0] != b.shape[1]:
            raise ShapeMismatch(f"a layer of {a.shape[0]} and then one that reads {b.shape[1]}", "the same")
    sizes = [np.abs(np.asarray(w, dtype=float)) for w in weights]
    if edges is not None:
        sizes = strongest(sizes, edges)
    if sum(int((w > 0).sum()) for w in sizes) < 2 or draws < 1:
        raise TooLittleData("fewer than two connections or no draws", "at least two, and one")
    if groups is not None:
        widths = [sizes[0].shape[1], *(len(w) for w in sizes)]
        if [len(g) for g in groups] != widths:
            raise ShapeMismatch(f"groups of {[len(g) for g in groups]} neurons", f"{widths}, inputs first")
    q, found = _q(sizes, groups, seed.child("louvain"))
    null = np.zeros(draws)
    for d in range(draws):
        other = [rewired(w, seed.child("swaps", d, i)) for i, w in enumerate(sizes)]
        null[d] = _q(other, groups, seed.child("null", d))[0]
    return Modularity(q, null, found)


def strongest(sizes: Sequence[Float[np.ndarray, "_ _"]], edges: int) -> list[Float[np.ndarray, "_ _"]]:
    """The ``edges`` largest of all layers together, the others 0.

    Raises:
        BadInput: there are not that many, or none is asked for.
    """
    flat = np.concatenate([w.ravel() for w in sizes])
    if not 1 <= edges <= int((flat > 0).sum()):
        raise BadInput(f"edges={edges}", f"1 to {int((flat > 0).sum())}, the connections there are")
    flat[np.argsort(-flat, kind="stable")[edges:]] = 0.0
    pieces = np.split(flat, np.cumsum([w.size for w in sizes])[:-1])
    return [piece.reshape(w.shape) for piece, w in zip(pieces, sizes, strict=True)]


def rewired(sizes: Float[np.ndarray, "to from"], seed: Seed) -> Float[np.ndarray, "to from"]:
    """One layer with its connections' ends exchanged: the same number for every neuron, and the same weights.

    A swap takes a → b and c → d to a → d and c → b where neither is there yet. What a full layer has no room for is
    exchanged by size alone.
    """
    rng = seed.numpy()
    to, start = np.nonzero(sizes)
    there: Bool[np.ndarray, "to from"] = sizes > 0
    values = rng.permutation(sizes[to, start])
    n = len(to)
    if n > 1:
        for i, j in rng.integers(0, n, (SWAPS * n, 2)):
            if there[to[j], start[i]] or there[to[i], start[j]]:
                continue
            there[to[i], start[i]] = there[to[j], start[j]] = False
            to[i], to[j] = to[j], to[i]
            there[to[i], start[i]] = there[to[j], start[j]] = True
    out = np.zeros_like(sizes)
    out[to, start] = values
    return out


def _q(
    sizes: Sequence[Float[np.ndarray, "_ _"]], groups: Sequence[Int[np.ndarray, " _"]] | None, seed: Seed
) -> tuple[float, tuple[frozenset[tuple[int, int]], ...]]:
    import networkx as nx

    graph = nx.Graph()
    for layer, w in enumerate(sizes):
        for b, a in zip(*np.nonzero(w), strict=True):
            graph.add_edge((layer, int(a)), (layer + 1, int(b)), weight=float(w[b, a]))
    if groups is None:
        found = nx.community.louvain_communities(graph, weight="weight", seed=seed.integer % 2**32)
    else:
        by_group: dict[int, set[tuple[int, int]]] = {}
        for layer, j in graph.nodes:
            by_group.setdefault(int(groups[layer][j]), set()).add((layer, j))
        found = list(by_group.values())
    q = float(nx.community.modularity(graph, found, weight="weight"))
    return q, tuple(sorted((frozenset(c) for c in found), key=sorted))
