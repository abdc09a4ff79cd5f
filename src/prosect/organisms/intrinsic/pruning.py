"""Weight sparsity: by magnitude, by an L0 penalty, and at random as the baseline.

Magnitude: the share of weights that are left falls along a cubic while training goes on (Zhu & Gupta 2017, "To prune,
or not to prune", equation 1). L0: every weight has a gate with the hard concrete distribution, and the expected
number of open gates is penalised (Louizos, Welling & Kingma 2018, "Learning sparse neural networks through L0
regularization", sections 2.2 and 4). Both prune the matrices alone; biases stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms.training import descend

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Temperature and stretch of the hard concrete distribution, as published."""
Weights = Mapping[str, Tensor]
Loss = Callable[[Weights], Tensor]
"""Parameters by name → loss on a fresh batch."""


def largest(weights: Sequence[Float[Tensor, "_ _"]], keep: int) -> list[Bool[Tensor, "_ _"]]:
    """Masks of the ``keep`` weights that are largest in magnitude over all matrices together.

    Raises:
        BadInput: ``keep`` is below 0 or above how many there are.
    """
    flat = torch.cat([w.detach().abs().flatten() for w in weights])
    if not 0 <= keep <= len(flat):
        raise BadInput(f"keep={keep}", f"0 to {len(flat)}")
    on = torch.zeros(len(flat), dtype=torch.bool)
    on[flat.argsort(descending=True, stable=True)[:keep]] = True
    pieces = torch.split(on, [w.numel() for w in weights])
    return [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]


def by_magnitude(
    weights: Weights, loss: Loss, keep: int, steps: int, rate: float, shrink: float = 0.0
) -> None:
    """Prune matrices in place down to ``keep`` weights, and train on.

    Args:
        weights: leaf tensors with gradients.
        loss: of a step.
        keep: weights left in all matrices together.
        steps: in all; pruning is over after two fifths of them.
        rate: of Adam.
        shrink: loss for each weight of size 1, during the first four fifths of the steps: of two neurons that do
            the same it lets one go.
    """
    matrices = [w for w in weights.values() if w.ndim == 2]
    total = sum(w.numel() for w in matrices)
    masks = largest(matrices, total)
    alone = steps // 5
    until = (steps - alone) // 2

    def after(step: int) -> None:
        nonlocal masks
        if step <= until:
            done = min(step / max(until, 1), 1.0)
            masks = largest(matrices, round(keep + (total - keep) * (1 - done) ** 3))
        for w, mask in zip(matrices, masks, strict=True):
            w.mul_(mask)

    def shrinking(_: int) -> Tensor:
        return loss(weights) + shrink * torch.stack([w.abs().sum() for w in matrices]).sum()

    descend(weights.values(), steps - alone, rate, shrinking, after)
    descend(weights.values(), alone, rate / 2, lambda _: loss(weights), lambda _: after(until + 1))


def scattered(weights: Sequence[Float[Tensor, "_ _"]], keep: int, seed: Seed) -> list[Bool[Tensor, "_ _"]]:
    """Masks of ``keep`` weights anywhere in all matrices together."""
    rng = seed.torch()
    return largest([torch.rand(w.shape, generator=rng) + 1.0 for w in weights], keep)


def at_random(weights: Weights, loss: Loss, keep: int, steps: int, rate: float, seed: Seed) -> None:
    """Prune random weights in place, ``keep`` of them left, and train on: what any method must beat."""
    matrices = [w for w in weights.values() if w.ndim == 2]
    masks = scattered(matrices, keep, seed)

    def after(_: int) -> None:
        for w, mask in zip(matrices, masks, strict=True):
            w.mul_(mask)

    with torch.no_grad():
        after(0)
    descend(weights.values(), steps, rate, lambda _: loss(weights), after)


def by_l0(
    weights: Weights, loss: Loss, strength: float, steps: int, rate: float, seed: Seed, start: float = 2.0
) -> None:
    """Train gates and weights together, and multiply the closed gates into the weights, in place.

    Args:
        weights: leaf tensors with gradients.
        loss: of a step.
        strength: loss for each expected open gate.
        steps: the last quarter trains the weights that are left, gates fixed.
        rate: of Adam; gates learn ten times as fast, since they need to go far.
        seed: of the gates' noise.
        start: first log α of every gate; 2 is open with a probability of .99.
    """
    rng = seed.torch()
    names = [name for name, w in weights.items() if w.ndim == 2]
    gates = {name: torch.full_like(weights[name], start / 10).requires_grad_(True) for name in names}

    def step(_: int) -> Tensor:
        z = {name: sampled(10 * gates[name], rng) for name in names}
        expected = torch.stack([opens(10 * gates[name]).sum() for name in names]).sum()
        return (
            loss({name: w * z[name] if name in z else w for name, w in weights.items()}) + strength * expected
        )

    descend([*weights.values(), *gates.values()], steps - steps // 4, rate, step)
    closed = {name: settled(10 * gates[name].detach()) for name in names}
    with torch.no_grad():
        for name in names:
            weights[name].mul_(closed[name])

    def after(_: int) -> None:
        for name in names:
            weights[name].mul_(closed[name] > 0)

    descend(weights.values(), steps // 4, rate / 2, lambda _: loss(weights), after)


def sampled(log_alpha: Float[Tensor, "*n"], rng: torch.Generator) -> Float[Tensor, "*n"]:
    """Gates drawn from the hard concrete distribution, in [0, 1]; Louizos et al. 2018, equations 10 and 11."""
    u = torch.rand(log_alpha.shape, generator=rng).clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def opens(log_alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Probability that a gate is above 0; Louizos et al. 2018, equation 12."""
    return torch.sigmoid(log_alpha - BETA * math.log(-LOW / HIGH))


def settled(log_alpha: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The gate without noise that is used after training; Louizos et al. 2018, equation 13."""
    return (torch.sigmoid(log_alpha) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
