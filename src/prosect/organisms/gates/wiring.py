"""A layered network of a few units as plain arrays, and what it gives when some of its edges are cut.

Units of all but the last layer are clip(w·x + b, 0, 1) or relu(w·x + b); the last layer is linear. Clipped units
with whole weights are the connectives of Łukasiewicz logic: clip(a + b − 1) is *and*, clip(a + b) is *or*, and
so on, exact on 0 and 1 and defined between them, where a mean ablation leads (McNaughton 1951, "A theorem about
infinite-valued sentential logic"). Everything here is float64 and, for such weights over all 2^k inputs, exact:
weights are whole and means are multiples of 2^−k.

Nodes are ``inputs.I`` and ``layers.L.J``. An edge goes from a node to a unit of the next layer that gives it a
weight other than zero. To cut an edge is to let its reader, and no other, see something else than what the writer
says: zero, the writer's mean over all inputs, or what it says on another input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.errors import ShapeMismatch, UnknownName

Ablation = Literal["zero", "mean", "resample"]
ABLATIONS: tuple[Ablation, ...] = ("zero", "mean", "resample")


@dataclass(frozen=True)
class Edge:
    """From unit ``writer`` of the layer before to unit ``reader`` of layer ``layer`` (0 reads the inputs)."""

    layer: int
    reader: int
    writer: int

    @property
    def names(self) -> tuple[str, str]:
        """The writer's site and the reader's."""
        return node(self.layer - 1, self.writer), f"{node(self.layer, self.reader)}:in"


def node(layer: int, unit: int) -> str:
    """The site of a unit; layer −1 holds the inputs."""
    return f"inputs.{unit}" if layer < 0 else f"layers.{layer}.{unit}"


@dataclass(frozen=True, eq=False)
class Wiring:
    """The weights of every layer.

    Attributes:
        weights: of each layer, (units, units of the layer before).
        biases: of each layer, (units,).
        activation: ``clip`` to [0, 1] or ``relu``, of all layers but the last.
    """

    weights: tuple[Float[np.ndarray, "_units _before"], ...]
    biases: tuple[Float[np.ndarray, " _units"], ...]
    activation: Literal["clip", "relu"]

    @property
    def bits(self) -> int:
        """How many inputs it reads."""
        return int(self.weights[0].shape[1])

    @cached_property
    def inputs(self) -> Float[np.ndarray, "rows bits"]:
        """Every input there is, counting up, the first bit slowest."""
        return np.array(list(product((0.0, 1.0), repeat=self.bits)))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Those on some path to the output, layer by layer."""
        live = np.ones(len(self.biases[-1]), dtype=bool)
        found: list[Edge] = []
        for layer in reversed(range(len(self.weights))):
            there = (self.weights[layer] != 0) & live[:, None]
            found += [Edge(layer, int(j), int(i)) for j, i in reversed(np.argwhere(there))]
            live = there.any(axis=0)
        return tuple(reversed(found))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Units of all layers but the last that some edge leaves, inputs not among them."""
        writers = {(e.layer - 1, e.writer) for e in self.edges if e.layer > 0}
        return tuple(node(*at) for at in sorted(writers))

    def said(self, inputs: Float[np.ndarray, "rows bits"]) -> list[Float[np.ndarray, "rows _units"]]:
        """What every node says with nothing cut: the inputs, then layer by layer; the last is the logits."""
        out = [inputs]
        for layer in range(len(self.weights)):
            out.append(self._act(layer, out[-1] @ self.weights[layer].T + self.biases[layer]))
        return out

    def logits(
        self, cut: Bool[np.ndarray, "subsets edges"], ablation: Ablation
    ) -> Float[np.ndarray, "subsets rows"]:
        """The output with edges cut, several ways, all at once.

        Args:
            cut: for each way, which of `edges` are cut.
            ablation: what a reader sees along a cut edge.

        Returns:
            One column for every input; for ``resample`` one for every pair of an input (slow) and the one that
            cut edges speak of (fast).

        Raises:
            ShapeMismatch: not one column for each edge.
            UnknownName: no such ablation.
        """
        if cut.shape[1] != len(self.edges):
            raise ShapeMismatch(f"cuts of {cut.shape[1]} edges", f"{len(self.edges)}")
        inputs, other = self.instead(ablation)
        value = np.broadcast_to(inputs, (len(cut), *inputs.shape))
        for layer, weight in enumerate(self.weights):
            off = np.zeros((len(cut), *weight.shape), dtype=bool)
            for at, edge in enumerate(self.edges):
                if edge.layer == layer:
                    off[:, edge.reader, edge.writer] = cut[:, at]
            kept, lost = np.where(off, 0.0, weight), np.where(off, weight, 0.0)
            before = value @ kept.swapaxes(1, 2) + other[layer] @ lost.swapaxes(1, 2)
            value = self._act(layer, before + self.biases[layer])
        return np.asarray(value[..., 0])

    def instead(
        self, ablation: Ablation
    ) -> tuple[Float[np.ndarray, "rows bits"], list[Float[np.ndarray, "rows _units"]]]:
        """The inputs of every column of `logits`, and what a cut edge's writer seems to say in each."""
        said = self.said(self.inputs)[:-1]
        if ablation == "zero":
            return self.inputs, [np.zeros_like(x) for x in said]
        if ablation == "mean":
            return self.inputs, [np.broadcast_to(x.mean(axis=0), x.shape) for x in said]
        if ablation == "resample":
            n = len(self.inputs)
            return self.inputs.repeat(n, axis=0), [np.tile(x, (n, 1)) for x in said]
        raise UnknownName("ablation", ablation, ABLATIONS)

    def _act(self, layer: int, x: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
        if layer == len(self.weights) - 1:
            return x
        return np.asarray(np.clip(x, 0.0, 1.0) if self.activation == "clip" else np.maximum(x, 0.0))


def wanted(wiring: Wiring, ablation: Ablation) -> Int[np.ndarray, " rows"]:
    """The answer, 1 or −1, that the whole network gives at every column of `Wiring.logits`."""
    clean = np.sign(wiring.said(wiring.inputs)[-1][:, 0]).astype(np.int64)
    return np.asarray(clean.repeat(len(clean)) if ablation == "resample" else clean)
