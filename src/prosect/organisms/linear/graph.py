"""``linear``: a linear network whose nodes read any earlier ones, so that every effect is a sum over paths.

Node j says x_j = A_j · x + b_j, in topological order: first the inputs, last the output. The total effect of node j
on node i is T_ij with T = (I − A)^−1 = I + A + A² + ...: the sum over all paths of the product of the weights on
them; the direct effect is A_ij and the indirect one the difference (Pearl 2001, "Direct and indirect effects").
Weights are multiples of 1/8, so in float64 all of this is exact. Four nodes are planted among random ones:

- *constant*: reads nothing and says 1: matters when set to zero, never when given its mean or another run's value;
- *cancelled*: has a direct effect on the output and an indirect one that takes it back: total effect zero, and no
  edge into it matters;
- *mediator*: the node that takes it back;
- *unread*: nobody reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import BLOCK, StreamedSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

INPUTS, HIDDEN = 4, 8
WEIGHTS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
DENSITY = 0.5
MEAN, SHIFT = 0.5, 1.5
"""Mean of every input, and what is added to it in ``shift``; their standard deviation is 1."""


class Given(nn.Module):
    """One of the inputs, as it is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n 1"]:
        return inputs[:, self.number : self.number + 1]


class Sum(nn.Module):
    """weight · (all earlier nodes) + bias."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(before))
        self.bias = nn.Parameter(torch.empty(1))

    def forward(self, earlier: Float[Tensor, "n before"]) -> Float[Tensor, "n 1"]:
        return (earlier @ self.weight)[:, None] + self.bias


class Graph(nn.Module):
    """inputs (n, 4) → output (n, 1); ``nodes.J`` says one number for each row, ``nodes.J:in`` is all earlier ones."""

    def __init__(self, inputs: int, nodes: int) -> None:
        super().__init__()
        self.nodes = nn.ModuleList([Given(j) if j < inputs else Sum(j) for j in range(nodes)])
        self.given = inputs

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n 1"]:
        said: list[Tensor] = []
        for j, node in enumerate(self.nodes):
            said.append(node(inputs if j < self.given else torch.cat(said, dim=-1)))
        return said[-1]


def weights(
    seed: int = 0,
) -> tuple[Float[np.ndarray, "nodes nodes"], Float[np.ndarray, " nodes"], dict[str, int]]:
    """A, b, and which node is which planted one."""
    rng = Seed(seed).child("linear", "weights").numpy()
    n = INPUTS + HIDDEN + 1
    a = np.tril(np.where(rng.random((n, n)) < DENSITY, rng.choice(WEIGHTS, (n, n)), 0.0), -1)
    a[:INPUTS] = 0.0
    a[-1, INPUTS:-1] = rng.choice(WEIGHTS, HIDDEN)
    bias = np.zeros(n)
    # nodes that are told apart by place: the mediator must come after what it takes back
    places = np.sort(INPUTS + rng.permutation(HIDDEN)[:4])
    cancelled, mediator = int(places[0]), int(places[3])
    constant, unread = (int(places[i]) for i in (1 + rng.permutation(2)))
    a[constant], bias[constant] = 0.0, 1.0
    a[:, unread] = 0.0
    a[cancelled] = np.where(np.arange(n) < INPUTS, 0.5, 0.0)
    a[:, [cancelled, mediator]] = 0.0
    a[mediator, cancelled], a[-1, mediator], a[-1, cancelled] = 0.5, 0.5, -0.25
    return a, bias, {"constant": constant, "cancelled": cancelled, "mediator": mediator, "unread": unread}


def total(a: Float[np.ndarray, "nodes nodes"]) -> Float[np.ndarray, "nodes nodes"]:
    """(I − A)^−1 of a strictly lower triangular A, row by row: exact for weights of few bits."""
    out = np.eye(len(a))
    for i in range(len(a)):
        out[i] += a[i, :i] @ out[:i]
    return out


def influence(a: Float[np.ndarray, "nodes nodes"]) -> Float[np.ndarray, " nodes"]:
    """How much of the output every node is behind: the last row of (I − N)^−1 − I, N being |A| with rows summing to 1.

    The measure that attribution graphs are pruned by (Ameisen et al. 2025, "Circuit Tracing", appendix on pruning).
    """
    size = np.abs(a)
    rows = size.sum(axis=1, keepdims=True)
    shares = np.divide(size, rows, out=np.zeros_like(size), where=rows > 0)
    return np.asarray((total(shares) - np.eye(len(a)))[-1])


def network(seed: int = 0) -> tuple[Graph, Truth]:
    """The network and its truth.

    Quantities, on the output: ``total J``, ``direct J``, ``indirect J`` and ``influence J`` of every node; ``edge J
    I``, what a unit more along the one edge does; ``mean J`` and ``variance J`` of the nodes over the inputs.
    """
    a, bias, planted = weights(seed)
    t = total(a)
    out, n = t[-1], len(a)
    given = np.array([MEAN] * INPUTS + [0.0] * (n - INPUTS))
    means = t @ (bias + given)
    variances = np.square(t[:, :INPUTS]).sum(axis=1)
    share = influence(a)
    quantities: dict[str, float] = {}
    for j in range(n - 1):
        quantities |= {
            f"total {j}": float(out[j]),
            f"direct {j}": float(a[-1, j]),
            f"indirect {j}": float(out[j] - a[-1, j]),
            f"influence {j}": float(share[j]),
        }
    for j in range(n):
        quantities |= {f"mean {j}": float(means[j]), f"variance {j}": float(variances[j])}
    edges: dict[str, list[tuple[str, str]]] = {"zero": [], "mean": [], "resample": []}
    for i, j in np.argwhere(a != 0):
        quantities[f"edge {j} {i}"] = float(out[i] * a[i, j])
        if out[i] * a[i, j] == 0:
            continue
        for ablation, found in edges.items():
            if variances[j] > 0 or (ablation == "zero" and means[j] != 0):
                found.append((f"nodes.{j}", f"nodes.{i}:in"))
    names = {j: name for name, j in planted.items()}
    variables = tuple(
        Variable(f"nodes.{j}", 0, "sum", {"role": names.get(j, "random")}, {"total": float(out[j])})
        for j in range(INPUTS, n)
    )
    truth = Truth(
        organism="linear",
        variables=variables,
        edges={ablation: tuple(found) for ablation, found in edges.items()},
        quantities=quantities,
        nulls={"other-input": "nodes are paired with other inputs: none says anything about the output"},
        size=f"{INPUTS} inputs, {HIDDEN} nodes, one output",
    )
    return assemble(a, bias), truth


def assemble(a: Float[np.ndarray, "nodes nodes"], bias: Float[np.ndarray, " nodes"]) -> Graph:
    """The network with these weights, in eval mode."""
    with torch.device("meta"):
        module = Graph(INPUTS, len(a))
    state = {f"nodes.{j}.weight": a[j, :j] for j in range(INPUTS, len(a))}
    return filled(module, state | {f"nodes.{j}.bias": bias[j : j + 1] for j in range(INPUTS, len(a))})


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A linear network of thirteen nodes that read one another in order; every effect is a sum over paths.

    Drawn, not trained. Known in closed form: total, direct and indirect effect and influence of every node, what
    each edge carries, mean and variance of every node, and which edges matter under each ablation; one node's
    effects cancel, one is constant, one is unread.
    """
    return opened(network(seed), source(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 512,
    sealed: int = 512,
    shift: int = 512,
) -> StreamedSource:
    """Inputs ``inputs`` (n, 4), independent and normal of mean ½ and variance 1; in ``shift`` of mean 2."""
    root = Seed(seed).child("linear", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.randn(BLOCK, INPUTS, generator=root.child(part, block).torch())
        return {"inputs": drawn + MEAN + (SHIFT if part == "shift" else 0.0)}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("linear", seed, make, units)


def untrained(seed: int = 0) -> Graph:
    """The model null: the same nodes, each with weights of its own size at random."""
    return redrawn(network(0)[0], Seed(seed).child("linear", "untrained"))
