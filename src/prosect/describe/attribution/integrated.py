"""Integrated gradients: the gradient averaged along the straight path from a baseline, which adds up to the difference.

Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks", equation 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference

POINTS = 2**22
"""Numbers of points made at once, at most."""
QUADRATURES = ("gauss-legendre", "middle", "trapezoid", "left", "right")


def nodes(quadrature: str, steps: int) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Where on [0, 1] the gradient is taken, and the weight of each place; weights add up to 1.

    Raises:
        BadInput: fewer than one step (two for the trapezoid, whose ends count half).
        UnknownName: no such rule.
    """
    if quadrature not in QUADRATURES:
        raise UnknownName("quadrature", quadrature, QUADRATURES)
    least = 2 if quadrature == "trapezoid" else 1
    if steps < least:
        raise BadInput(f"{steps} steps of {quadrature}", f"at least {least}")
    if quadrature == "gauss-legendre":
        at, weight = np.polynomial.legendre.leggauss(steps)
        return (at + 1) / 2, weight / 2
    if quadrature == "trapezoid":
        weight = np.full(steps, 1.0 / (steps - 1))
        weight[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, steps), weight
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[quadrature]
    return (np.arange(steps) + shift) / steps, np.full(steps, 1.0 / steps)


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients; over several baselines, their mean.

    Attributes:
        steps: gradients taken on each path.
        quadrature: where they are taken. Gauss-Legendre needs the fewest where the path is smooth; on a
            network of kinks the middle rule is as good.
    """

    steps: int = 32
    quadrature: str = "gauss-legendre"
    name: str = "integrated-gradients"
    gradient: bool = True
    several: bool = False

    def __post_init__(self) -> None:
        nodes(self.quadrature, self.steps)

    @property
    def words(self) -> str:
        """What a value means."""
        return (
            "integral of the metric's gradient along the straight path from the baseline "
            f"({self.quadrature}, {self.steps} steps); values add up to f(x) − f(baseline)"
        )

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """``steps`` backward passes for each row and baseline."""
        at, weight = nodes(self.quadrature, self.steps)
        values = np.zeros((len(explicand), explicand.features.count))
        promised = explicand.itself().numpy()
        shape = explicand.features.shape
        alpha = torch.from_numpy(at).to(explicand.x).reshape(-1, *[1] * len(shape))
        weights = torch.from_numpy(weight).to(explicand.device)
        for rows in together(explicand, self.steps * reference.size):
            starts = torch.stack([reference.of(row) for row in rows])  # (rows, references, *shape)
            path = explicand.x[rows][:, None] - starts
            points = starts[:, :, None] + alpha * path[:, :, None]
            index = torch.tensor(rows).repeat_interleave(reference.size)
            _, slope = explicand.gradient(points.reshape(-1, *shape), index.repeat_interleave(self.steps))
            mean = torch.einsum(
                "rs...,s->r...", slope.double().reshape(len(index), self.steps, *shape), weights
            )
            each = explicand.features.gather(mean * path.reshape(-1, *shape)).cpu()
            values[rows] = each.reshape(len(rows), reference.size, -1).mean(dim=1).numpy()
            there = explicand.at(starts.reshape(-1, *shape), index).reshape(len(rows), -1)
            promised[rows] -= there.mean(dim=1).numpy()
        return Scores(values * explicand.present.numpy(), promised)


def together(explicand: Explicand, each: int) -> Iterator[list[int]]:
    """Rows in groups whose points, ``each`` for a row, are made at once."""
    most = max(1, POINTS // (each * max(1, explicand.x[0].numel())))
    for start in range(0, len(explicand), most):
        yield list(range(start, min(start + most, len(explicand))))
