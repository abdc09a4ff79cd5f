"""``linear-deep``: three linear layers whose product, and every mode of it, is written down.

Each layer is U_l S_l U_(l−1)ᵀ with the bases of neighbours shared, so the product is U_3 (S_3 S_2 S_1) U_0ᵀ: its
singular values are products of the layers', as in a deep linear network that has learned from small weights (Saxe,
McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks").
The last hidden dimensions carry nothing: the product has a lower rank than any layer is wide.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth
from prosect.organisms.filled import filled
from prosect.organisms.linear.normal import normal
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn

if TYPE_CHECKING:
    from prosect.model import Model

SIZES, RANK = (12, 10, 8, 6), 4
NOISE = 0.1  # standard deviation of the answers that a regression would be fitted to


class Deep(nn.Module):
    """inputs (n, 12) → outputs (n, 6) by ``layers.0``, ``layers.1`` and ``layers.2``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b, bias=False) for a, b in pairwise(SIZES)])

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


def modes(seed: int = 0) -> tuple[list[Float[np.ndarray, "_size rank"]], Float[np.ndarray, "layers rank"]]:
    """Orthonormal bases before and after every layer, and the layers' singular values."""
    rng = Seed(seed).child("linear-deep", "weights").numpy()
    bases = [np.linalg.qr(rng.standard_normal((size, size)))[0][:, :RANK] for size in SIZES]
    values = -np.sort(-rng.uniform(0.5, 2.0, (len(SIZES) - 1, RANK)), axis=1)
    return bases, values


def network_deep(seed: int = 0) -> tuple[Deep, Truth]:
    """The network and its truth: the direction of every mode after each layer, strongest first.

    Quantities: ``singular value K`` of the product, ``rank``, and ``residual variance``, the smallest mean squared
    error that a regression on `answers` can have for each output.
    """
    bases, values = modes(seed)
    product = values.prod(axis=0)
    state = {f"layers.{i}.weight": bases[i + 1] * values[i] @ bases[i].T for i in range(len(values))}
    with torch.device("meta"):
        module = Deep()
    names = tuple(f"mode {k}" for k in range(RANK))
    truth = Truth(
        organism="linear-deep",
        features=tuple(
            FeatureDirections(f"layers.{i}", bases[i + 1].T.copy(), np.ones(RANK), names)
            for i in range(len(values))
        ),
        quantities={f"singular value {k}": float(s) for k, s in enumerate(product)}
        | {"rank": float(RANK), "residual variance": NOISE**2},
        nulls={"other-input": "layers are paired with other inputs: no direction carries a mode"},
        size=f"layers of {' → '.join(map(str, SIZES))}, rank {RANK}",
    )
    return filled(module, state), truth


def answers(seed: int, inputs: Float[Tensor, "n inputs"], part: str) -> Float[Tensor, "n outputs"]:
    """What a regression would be fitted to: the product of the layers times the inputs, and noise."""
    bases, values = modes(seed)
    product = torch.from_numpy((bases[-1] * values.prod(axis=0) @ bases[0].T).astype(np.float32))
    noise = torch.randn(
        len(inputs), SIZES[-1], generator=Seed(seed).child("linear-deep", "noise", part).torch()
    )
    return inputs @ product.T + NOISE * noise


def build_deep(seed: int = 0) -> tuple[Model, Truth]:
    """Three linear layers whose product has four modes of known strength.

    Drawn, not trained. Known: the singular values and vectors of the product, and the direction of every mode
    after each layer (Saxe, McClelland & Ganguli 2014).
    """
    return opened(network_deep(seed), source_deep(seed))


source_deep = partial(normal, "linear-deep", SIZES[0])


def untrained_deep(seed: int = 0) -> Deep:
    """The model null: layers of random weights of the same size."""
    return redrawn(network_deep(0)[0], Seed(seed).child("linear-deep", "untrained"))
