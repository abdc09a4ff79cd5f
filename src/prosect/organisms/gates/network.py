"""The torch network of a wiring: every unit is a module of its own, so that single units and edges have sites.

``layers.0`` gives all units of a layer side by side, ``layers.0.2`` one of them, and ``layers.1.0:in`` is what one
unit of the next layer reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.organisms.filled import filled
from prosect.organisms.gates.wiring import Wiring
from prosect.organisms.sources import BLOCK, StreamedSource, parts


class Bit(nn.Module):
    """One of the inputs, as it is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, bits: Float[Tensor, "n bits"]) -> Float[Tensor, "n 1"]:
        return bits[:, self.number : self.number + 1]


class Unit(nn.Module):
    """activation(weight · x + bias)."""

    def __init__(self, before: int, activation: Literal["clip", "relu", "none"]) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(before))
        self.bias = nn.Parameter(torch.empty(1))

    def forward(self, x: Float[Tensor, "n before"]) -> Float[Tensor, "n 1"]:
        out = (x @ self.weight)[:, None] + self.bias
        if self.activation == "clip":
            return out.clamp(0.0, 1.0)
        return out.relu() if self.activation == "relu" else out

    def extra_repr(self) -> str:
        return self.activation


class Units(nn.ModuleList):
    """Units that read the same, side by side."""

    def forward(self, x: Float[Tensor, "n before"]) -> Float[Tensor, "n units"]:
        return torch.cat([unit(x) for unit in self], dim=-1)


class Gates(nn.Module):
    """bits (n, k) of 0 and 1 → logit (n, 1), above zero for true."""

    def __init__(self, sizes: tuple[int, ...], activation: Literal["clip", "relu"]) -> None:
        super().__init__()
        self.inputs = Units([Bit(i) for i in range(sizes[0])])
        self.layers = nn.ModuleList()
        for layer in range(1, len(sizes)):
            kind: Literal["clip", "relu", "none"] = "none" if layer == len(sizes) - 1 else activation
            self.layers.append(Units([Unit(sizes[layer - 1], kind) for _ in range(sizes[layer])]))

    def forward(self, bits: Float[Tensor, "n bits"]) -> Float[Tensor, "n 1"]:
        x = self.inputs(bits)
        for layer in self.layers:
            x = layer(x)
        return x  # type: ignore[no-any-return]


def module_of(wiring: Wiring) -> Gates:
    """The network with these weights, in eval mode."""
    sizes = (wiring.bits, *(len(b) for b in wiring.biases))
    with torch.device("meta"):
        module = Gates(sizes, wiring.activation)
    state: dict[str, np.ndarray] = {}
    for layer, (weight, bias) in enumerate(zip(wiring.weights, wiring.biases, strict=True)):
        for j in range(len(bias)):
            state[f"layers.{layer}.{j}.weight"] = weight[j]
            state[f"layers.{layer}.{j}.bias"] = bias[j : j + 1]
    return filled(module, state)


def wiring_of(module: Gates) -> Wiring:
    """The weights of a network, in float64; what is enumerated is the network as it is."""
    weights, biases = [], []
    for layer in module.layers:
        units = list(layer)  # type: ignore[call-overload]
        weights.append(np.stack([u.weight.detach().double().numpy() for u in units]))
        biases.append(np.concatenate([u.bias.detach().double().numpy() for u in units]))
    first = next(iter(module.layers[0]))  # type: ignore[call-overload]
    return Wiring(tuple(weights), tuple(biases), first.activation)


def bits_source(
    name: str,
    bits: int,
    seed: int = 0,
    folds: int = 2,
    explore: int = 1024,
    validate: int = 256,
    sealed: int = 256,
    shift: int = 256,
) -> StreamedSource:
    """Inputs ``bits`` (n, k), each 0 or 1 with equal chance; in ``shift``, 1 three times as often as 0."""
    root = Seed(seed).child("gates", name, "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.rand(BLOCK, bits, generator=root.child(part, block).torch())
        return {"bits": (drawn < (0.75 if part == "shift" else 0.5)).float()}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of(name, seed, make, units)
