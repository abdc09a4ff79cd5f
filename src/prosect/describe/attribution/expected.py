"""Expected gradients: integrated gradients over a background, one random baseline and place on the path at a time.

Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution priors and
expected gradients", section "Expected gradients".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.integrated import together
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference


@dataclass(frozen=True)
class ExpectedGradients:
    """The mean of (x − b) · gradient at b + α (x − b), b from the background and α uniform.

    Places on the path are one from each of as many equal parts of [0, 1] as there are samples (a stratified
    draw, unbiased and never less exact than an independent one), paired with baselines that go round the
    background in random order.

    Attributes:
        samples: gradients taken for each row.
    """

    samples: int = 128
    name: str = "expected-gradients"
    gradient: bool = True
    several: bool = True

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadInput(f"{self.samples} samples", "at least 2, or there is no standard error")

    @property
    def words(self) -> str:
        """What a value means."""
        return (
            f"expected gradient on paths from the background ({self.samples} samples); values add up to "
            "f(x) − E f(background) up to sampling error"
        )

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """``samples`` backward passes for each row; standard errors are those of independent draws."""
        n, shape = len(explicand), explicand.features.shape
        values = np.zeros((n, explicand.features.count))
        errors = np.zeros_like(values)
        promised = explicand.itself().numpy()
        for rows in together(explicand, self.samples):
            starts = torch.stack([self._starts(reference, row, seed) for row in rows])
            alpha = torch.stack([self._places(row, seed).to(starts) for row in rows])
            path = explicand.x[rows][:, None] - starts
            points = starts + alpha.reshape(len(rows), -1, *[1] * len(shape)) * path
            index = torch.tensor(rows).repeat_interleave(self.samples)
            _, slope = explicand.gradient(points.reshape(-1, *shape), index)
            each = explicand.features.gather(slope.double() * path.reshape(-1, *shape)).cpu()
            each = each.reshape(len(rows), self.samples, -1)
            values[rows] = each.mean(dim=1).numpy()
            errors[rows] = each.std(dim=1).numpy() / np.sqrt(self.samples)
        for row in range(n):
            background = reference.of(row)
            there = explicand.at(background, torch.full((len(background),), row))
            promised[row] -= float(there.mean())
        present = explicand.present.numpy()
        return Scores(values * present, promised, errors * present)

    def _starts(self, reference: Reference, row: int, seed: Seed) -> Tensor:
        """Points of the background, each as often as any other or once more."""
        rng, background = seed.child(row, "starts").numpy(), reference.of(row)
        rounds = -(-self.samples // len(background))
        picked = np.concatenate([rng.permutation(len(background)) for _ in range(rounds)])[: self.samples]
        return background[torch.from_numpy(picked).to(background.device)]

    def _places(self, row: int, seed: Seed) -> Tensor:
        """One place on the path in each of as many equal parts, in random order."""
        rng = seed.child(row, "places").numpy()
        return torch.from_numpy((rng.permutation(self.samples) + rng.random(self.samples)) / self.samples)
