"""Every subcircuit of a small network: which ones compute its function, and how much they have in common.

A subcircuit is a set of parts, edges or nodes; everything else is ablated together. It computes the function if the
sign of its output is right on every input (for ``resample``, whatever input the rest speaks of). Many do: that
circuits are not unique, and how many there are of them, is what Méloux et al. 2025 ("Everything, everywhere, all at
once: is mechanistic interpretability identifiable?") counted in networks like these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.errors import BadInput
from prosect.organisms.gates.wiring import ABLATIONS, Ablation, Wiring, node, wanted

Level = Literal["edges", "nodes"]
LARGEST = 20
"""Most parts of which all subsets are tried: a million."""
CHUNK = 4096  # subsets at once
CLOSE = 1e-9  # smallest change of a logit that is one


@dataclass(frozen=True, eq=False)
class Subcircuits:
    """The subcircuits that compute the function.

    Attributes:
        ablation: what happens to the rest.
        parts: what a subcircuit is a set of: edges (writer, reader), or the names of nodes.
        kept: one row for each subcircuit: which parts it keeps; in the order of the numbers they are in binary.
        tried: how many there were to try: every subset.
    """

    ablation: Ablation
    parts: tuple[tuple[str, str], ...] | tuple[str, ...]
    kept: Bool[np.ndarray, "found parts"]
    tried: int

    @property
    def count(self) -> int:
        """How many compute the function; at least one, since the whole network does."""
        return len(self.kept)

    @cached_property
    def minimal(self) -> Bool[np.ndarray, "minimal parts"]:
        """Those of which no proper subset computes the function, smallest first."""
        found: list[Bool[np.ndarray, " parts"]] = []
        for row in self.kept[np.argsort(self.kept.sum(axis=1), kind="stable")]:
            if not any((small <= row).all() for small in found):
                found.append(row)
        return np.array(found).reshape(-1, len(self.parts))

    @property
    def smallest(self) -> int:
        """Parts of the smallest."""
        return int(self.kept.sum(axis=1).min())

    @cached_property
    def overlap(self) -> float:
        """Mean Jaccard similarity of two different minimal ones; 1 where there is only one, 0 where none is shared."""
        m = self.minimal.astype(np.float64)
        if len(m) == 1:
            return 1.0
        both, size = m @ m.T, m.sum(axis=1)
        either = size[:, None] + size - both
        first, second = np.triu_indices(len(m), 1)
        return float((both[first, second] / either[first, second]).mean())

    def holds(self, part: int) -> bool:
        """Whether part number ``part`` is in all of them."""
        return bool(self.kept[:, part].all())

    def among(self, kept: Bool[np.ndarray, " parts"]) -> bool:
        """Whether this set of parts is one of them."""
        return bool((self.kept == kept).all(axis=1).any())


def subcircuits(wiring: Wiring, ablation: Ablation = "zero", level: Level = "edges") -> Subcircuits:
    """Try every subset.

    The half million subsets of the 19 edges of ``gates`` take seconds, and sixteen times that when resampled.

    Args:
        wiring: the network.
        ablation: of everything that is not kept; a node that is not kept has all edges that leave it cut.
        level: sets of edges, or of units of the hidden layers (inputs always stay).

    Raises:
        BadInput: there are too many parts to try all subsets.
    """
    n = len(wiring.edges) if level == "edges" else len(wiring.nodes)
    if n > LARGEST:
        raise BadInput(f"{n} {level}, which have 2^{n} subsets", f"at most {LARGEST}", "level='nodes'")
    right = wanted(wiring, ablation)
    found = []
    for start in range(0, 2**n, CHUNK):
        kept = _binary(np.arange(start, min(start + CHUNK, 2**n)), n)
        logits = wiring.logits(_cut(wiring, ~kept, level), ablation)
        found.append(kept[(np.sign(logits) == right).all(axis=1)])
    parts = tuple(e.names for e in wiring.edges) if level == "edges" else wiring.nodes
    return Subcircuits(ablation, parts, np.concatenate(found), 2**n)


def mattering(wiring: Wiring, ablation: Ablation, answer: bool = False) -> tuple[tuple[str, str], ...]:
    """The edges that matter when each is cut alone.

    Args:
        wiring: the network.
        ablation: what the reader sees instead.
        answer: only those whose cut makes some answer wrong; otherwise all that change some logit.
    """
    alone = np.eye(len(wiring.edges), dtype=bool)
    logits = wiring.logits(alone, ablation)
    whole = wiring.logits(np.zeros((1, len(wiring.edges)), dtype=bool), ablation)
    if answer:
        hit = (np.sign(logits) != wanted(wiring, ablation)).any(axis=1)
    else:
        hit = (np.abs(logits - whole) > CLOSE).any(axis=1)
    return tuple(e.names for e, matters in zip(wiring.edges, hit, strict=True) if matters)


def edges_of(wiring: Wiring) -> dict[str, tuple[tuple[str, str], ...]]:
    """`mattering` under every ablation; ``zero-answer`` and so on are the edges that change an answer."""
    found = {str(a): mattering(wiring, a) for a in ABLATIONS}
    return found | {f"{a}-answer": mattering(wiring, a, answer=True) for a in ABLATIONS}


def damage(
    wiring: Wiring, ablation: Ablation
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, "nodes nodes"]]:
    """Share of answers that are wrong without each node, and without each pair; order as in `Wiring.nodes`."""
    n = len(wiring.nodes)
    lost = np.zeros((n, n, n), dtype=bool)
    at = np.arange(n)
    lost[at, :, at] = True
    lost[:, at, at] = True
    logits = wiring.logits(_cut(wiring, lost.reshape(n * n, n), "nodes"), ablation)
    wrong = (np.sign(logits) != wanted(wiring, ablation)).mean(axis=1).reshape(n, n)
    return wrong.diagonal().copy(), wrong


def interactions(wiring: Wiring, ablation: Ablation) -> Float[np.ndarray, "nodes nodes"]:
    """damage(i, j) − damage(i) − damage(j), zero on the diagonal.

    Above zero the two stand in for each other (an *or*, a backup); below zero either's loss is enough to do what
    the loss of both does (an *and*); zero where they act on different answers.
    """
    one, two = damage(wiring, ablation)
    out = two - one[:, None] - one
    np.fill_diagonal(out, 0.0)
    return np.asarray(out)


def _cut(
    wiring: Wiring, lost: Bool[np.ndarray, "subsets parts"], level: Level
) -> Bool[np.ndarray, "subsets edges"]:
    if level == "edges":
        return lost
    place = {name: i for i, name in enumerate(wiring.nodes)}
    out = np.zeros((len(lost), len(wiring.edges)), dtype=bool)
    for at, edge in enumerate(wiring.edges):
        if edge.layer > 0:
            out[:, at] = lost[:, place[node(edge.layer - 1, edge.writer)]]
    return out


def _binary(numbers: Int[np.ndarray, " n"], width: int) -> Bool[np.ndarray, "n width"]:
    return np.asarray((numbers[:, None] >> np.arange(width)) % 2 == 1)
