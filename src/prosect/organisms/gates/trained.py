"""``gates-trained``: a small network that learned exclusive or, with every subset of its edges tried.

Its mechanism is not known by construction. What is known is found by trying everything: which edges matter, and
all 2^18 subsets of edges (the setting of Méloux et al. 2025, who show that one network has many circuits).
Sixteen copies are trained side by side; the first that gives every answer with a margin is kept.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.gates.network import Gates, bits_source, module_of, wiring_of
from prosect.organisms.gates.subcircuits import edges_of, subcircuits
from prosect.organisms.gates.wired import NULLS
from prosect.organisms.gates.wiring import Wiring
from prosect.organisms.opened import opened
from prosect.organisms.training import descend

if TYPE_CHECKING:
    from prosect.model import Model

SIZES = (2, 3, 3, 1)
COPIES, STEPS, RATE = 16, 600, 0.02
MARGIN = 1.0


@lru_cache(maxsize=8)
def train(seed: int = 0) -> Wiring:
    """The weights: logistic loss on all four inputs at once, Adam, a rate that falls linearly to zero.

    Raises:
        TooLittleData: none of the copies learned it.
    """
    theta = _start(Seed(seed).child("gates-trained", "start"))
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).expand(COPIES, 4, 2)
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0])

    def loss(_: int) -> Tensor:
        return nn.functional.softplus(-sign * _logits(theta, x)).mean()

    descend(theta, STEPS, RATE, loss)
    with torch.no_grad():
        margin = (sign * _logits(theta, x)).amin(dim=1)
    right = torch.nonzero(margin > MARGIN)
    if not len(right):
        raise TooLittleData(
            f"{COPIES} copies that all fail to learn exclusive or", "one that does", "another seed"
        )
    best = int(right[0])
    arrays = [t[best].detach().double().numpy() for t in theta]
    return Wiring(tuple(arrays[::2]), tuple(b[:, 0] for b in arrays[1::2]), "relu")


def network_trained(seed: int = 0) -> tuple[Gates, Truth]:
    """The network and what was found by trying: edges that matter, and how many subsets of edges suffice.

    Everything is found of the network as it is in float32, computed in float64.
    """
    edges, quantities = _tried(seed)
    truth = Truth(
        organism="gates-trained",
        edges=dict(edges),
        quantities=dict(quantities),
        nulls=NULLS,
        size="two bits, two layers of three units",
    )
    return module_of(train(seed)), truth


@lru_cache(maxsize=8)
def _tried(seed: int) -> tuple[dict[str, tuple[tuple[str, str], ...]], dict[str, float]]:
    """Edges and quantities; a million small passes, so they are kept."""
    made = wiring_of(module_of(train(seed)))
    quantities = {"accuracy": 1.0, "edges": float(len(made.edges))}
    for level in ("edges", "nodes"):
        found = subcircuits(made, "zero", "edges" if level == "edges" else "nodes")
        quantities[f"subsets of {level} that suffice (zero)"] = float(found.count)
        quantities[f"minimal subsets of {level} (zero)"] = float(len(found.minimal))
        quantities[f"overlap of minimal subsets of {level} (zero)"] = found.overlap
    return edges_of(made), quantities


def build_trained(seed: int = 0) -> tuple[Model, Truth]:
    """Exclusive or learned by two layers of three units.

    Trained in a second on all four inputs. Known, because everything was tried: which edges matter under each
    ablation, how many of the 2^18 subsets of edges compute the function under zero ablation, how many of those are
    minimal, and how much they overlap (Méloux et al. 2025). What its units stand for is not claimed.
    """
    return opened(network_trained(seed), source_trained(seed))


source_trained = partial(bits_source, "gates-trained", 2)
"""Inputs of ``gates-trained``: ``bits`` (n, 2); see `network.bits_source`."""


def untrained_trained(seed: int = 0) -> Gates:
    """The model null: a network as training begins with, from draws of its own."""
    theta = _start(Seed(seed).child("gates-trained", "untrained"))
    arrays = [t[0].detach().double().numpy() for t in theta]
    return module_of(Wiring(tuple(arrays[::2]), tuple(b[:, 0] for b in arrays[1::2]), "relu"))


def _start(seed: Seed) -> list[Tensor]:
    """Weights (copies, units, before) and biases (copies, units, 1), layer by layer."""
    theta = []
    for layer, (before, units) in enumerate(pairwise(SIZES)):
        rng = seed.child(layer).numpy()
        weight = rng.standard_normal((COPIES, units, before)) * np.sqrt(2 / before)
        bias = 0.1 * rng.standard_normal((COPIES, units, 1))
        theta += [torch.from_numpy(a.astype(np.float32)).requires_grad_(True) for a in (weight, bias)]
    return theta


def _logits(theta: list[Tensor], x: Tensor) -> Tensor:
    for i in range(0, len(theta), 2):
        x = x @ theta[i].transpose(1, 2) + theta[i + 1].transpose(1, 2)
        x = x.relu() if i < len(theta) - 2 else x
    return x[..., 0]
