"""More features than dimensions: a hidden layer that carries sparse features in directions that are known.

`network` is drawn, not trained: hidden = Dᵀ s + noise with random unit rows of D, and every output reads one
feature back, relu(D x − threshold). Whoever studies it sees the inputs s and the hidden layer; D is the truth.
The noise is an input too (``noise``), so that the network is a function of what it is given.

The toy model of superposition, which learns its directions, is in `prosect.organisms.toy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import BLOCK, StreamedSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

WIDTH, FEATURES, ACTIVE = 64, 256, 6.0
NOISE = 0.05  # standard deviation in each hidden dimension
THRESHOLD = 0.3  # of the outputs
OFFSET = 12.0  # of the Zipf law: the most frequent feature is active in about one input of six


class Hidden(nn.Module):
    """The hidden layer: a sum of directions, one for each active feature, and noise."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(features, width))

    def forward(
        self, features: Float[Tensor, "n features"], noise: Float[Tensor, "n width"] | None = None
    ) -> Float[Tensor, "n width"]:
        hidden = features @ self.directions
        return hidden if noise is None else hidden + noise


class Superposition(nn.Module):
    """features → ``hidden`` → as many outputs, relu of an affine readout."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.hidden = Hidden(features, width)
        self.readout = nn.Linear(width, features)
        self.act = nn.ReLU()

    def forward(
        self, features: Float[Tensor, "n features"], noise: Float[Tensor, "n width"] | None = None
    ) -> Float[Tensor, "n features"]:
        return self.act(self.readout(self.hidden(features, noise)))  # type: ignore[no-any-return]


def assemble(
    directions: Float[np.ndarray, "features width"], bias: Float[np.ndarray, " features"]
) -> Superposition:
    """The network with tied weights: what writes a feature also reads it."""
    with torch.device("meta"):
        module = Superposition(*directions.shape)
    return filled(
        module,
        {"hidden.directions": directions, "readout.weight": directions, "readout.bias": bias},
    )


def network(
    seed: int = 0, width: int = WIDTH, features: int = FEATURES, active: float = ACTIVE
) -> tuple[Superposition, Truth]:
    """The drawn network and its truth: row i of the directions belongs to input i and to output i.

    Args:
        seed: chooses the directions and which features are frequent.
        width: hidden dimensions.
        features: inputs.
        active: how many are active at once, on average.
    """
    drawn = Seed(seed).child("superposition", "directions").numpy().standard_normal((features, width))
    directions = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    cosines = np.abs(np.einsum("id,jd->ij", directions, directions)) - np.eye(features)
    truth = Truth(
        organism="superposition",
        features=(FeatureDirections("hidden", directions, _frequency(seed, features, active)),),
        quantities={
            "width": float(width),
            "features": float(features),
            "active": float(active),
            "noise": NOISE,
            "coherence": float(cosines.max()),
            "welch bound": float(np.sqrt(max(features - width, 0) / (width * (features - 1)))),
        },
        nulls={
            "shuffled-dimensions": "every hidden dimension is permuted over inputs by itself: its "
            "distribution stays, and no direction carries a feature",
            "other-input": "hidden layers are paired with other inputs: where a direction is active no longer "
            "depends on any feature",
        },
        size=f"{width} hidden units, {features} features, about {active:g} active",
    )
    return assemble(directions, np.full(features, -THRESHOLD)), truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """64 hidden units carrying 256 sparse features in superposition.

    The features lie along directions drawn at random, with tied weights and a threshold, so that each is read off
    again by its own output. Known: every direction, how often its feature is active, and the coherence of them
    all beside the Welch bound.
    """
    return opened(network(seed), source(seed))


def untrained(seed: int = 0) -> Superposition:
    """The model null: the same sizes, weights as large and random, and no output tied to what it reads."""
    return redrawn(network(seed)[0], Seed(seed).child("superposition", "untrained"))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 131_072,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
    *,
    width: int = WIDTH,
    features: int = FEATURES,
    active: float = ACTIVE,
) -> StreamedSource:
    """Inputs for the network of the same seed and sizes, made as they are read: ``features`` and ``noise``.

    A feature is active on its own with a probability that follows Zipf's law, and is then between 0.5 and 1.5.
    In ``shift`` all features are equally frequent and half as many again are active.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore: inputs in ``explore``; any number, since none are kept.
        validate: inputs in each fold.
        sealed: inputs in ``sealed``.
        shift: inputs in ``shift``.
        width: hidden dimensions.
        features: inputs of the network.
        active: how many are active at once, on average.
    """
    frequency = torch.from_numpy(_frequency(seed, features, active)).float()
    flat = torch.full_like(frequency, min(1.5 * active / features, 1.0))
    root = Seed(seed).child("superposition", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        rng = root.child(part, block).torch()
        probability = flat if part == "shift" else frequency
        on = torch.rand(BLOCK, features, generator=rng) < probability
        strength = 0.5 + torch.rand(BLOCK, features, generator=rng)
        noise = NOISE * torch.randn(BLOCK, width, generator=rng)
        return {"features": on * strength, "noise": noise}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of(
        "superposition", seed, make, units, width=width, features=features, active=active
    )


def _frequency(seed: int, features: int, active: float) -> Float[np.ndarray, " features"]:
    """How often each feature is active: 1 / (rank + offset), scaled to ``active`` in all, in random order.

    Raises:
        BadInput: some feature would have to be active more than half of the time.
    """
    weight = 1.0 / (np.arange(features) + OFFSET)
    frequency = active * weight / weight.sum()
    if active <= 0 or frequency.max() > 0.5:
        raise BadInput(
            f"{active:g} of {features} features active at once",
            "more than none, and each at most half of the time",
            "more features or fewer active ones",
        )
    order = Seed(seed).child("superposition", "frequency").numpy().permutation(features)
    return np.asarray(frequency[order])
