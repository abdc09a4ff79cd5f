"""The task of the sparse activations: say which of many rare features are present in a vector that mixes them.

Feature f is present with probability `CHANCE`, on its own, and then as strong as a number in [0.5, 1.5]. The
network sees Σ strength · direction, with more directions than dimensions, and answers one logit for each feature.
So what a neuron could stand for is known, and there are too few neurons for all of it unless they are shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prosect.core.seeds import Seed
from prosect.organisms.sources import BLOCK, StreamedSource, parts

FEATURES, WIDTH = 24, 12
CHANCE = 0.06  # about one and a half features in an input


def directions(seed: int) -> Float[np.ndarray, "24 12"]:
    """A random unit vector for each feature; the same for all twins of a seed."""
    drawn = Seed(seed).child("intrinsic", "directions").numpy().standard_normal((FEATURES, WIDTH))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def draw(n: int, rng: torch.Generator, chance: float = CHANCE) -> Float[Tensor, "n 24"]:
    """Strengths of the features in ``n`` inputs, 0 where one is absent."""
    present = torch.rand(n, FEATURES, generator=rng) < chance
    return present * (0.5 + torch.rand(n, FEATURES, generator=rng))


def losses(
    logits: Float[Tensor, "n features"], strengths: Float[Tensor, "n features"]
) -> Float[Tensor, "n features"]:
    """Cross-entropy of each feature's presence, nats."""
    return binary_cross_entropy_with_logits(logits, (strengths > 0).to(logits.dtype), reduction="none")


def ignorance(chance: float = CHANCE) -> float:
    """The loss on one feature of saying always how often it occurs: the entropy of its presence, nats."""
    return -chance * math.log(chance) - (1 - chance) * math.log1p(-chance)


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 65_536,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
) -> StreamedSource:
    """Inputs ``features`` (n, 24); in ``shift`` features are present twice as often.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: inputs in each part.
    """
    root = Seed(seed).child("intrinsic", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        often = 2 * CHANCE if part == "shift" else CHANCE
        return {"features": draw(BLOCK, root.child(part, block).torch(), often)}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("intrinsic", seed, make, units)
