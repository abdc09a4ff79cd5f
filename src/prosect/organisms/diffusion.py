"""``diffusion-mlp`` and ``diffusion-exact``: denoisers of a mixture of Gaussians, learned and written down.

Points x₀ are drawn from Σ_k π_k N(μ_k, s²) and seen as x = x₀ + σ ε. The best guess of x₀ is known: the posterior share
of component k, r_k ∝ π_k N(x; μ_k, s² + σ²), and in each component the usual shrinkage,
D(x, σ) = Σ_k r_k (μ_k + s²/(s² + σ²) (x − μ_k)); the score of the noisy density is (D − x)/σ² (Karras et al. 2022,
"Elucidating the Design Space of Diffusion-Based Generative Models", equation 3). One network is
that formula, the other an MLP that learned to denoise and is measured against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
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
from prosect.organisms.training import descend

if TYPE_CHECKING:
    from prosect.model import Model

COMPONENTS, WIDTH = 5, 64
SPREAD, RADIUS = 0.2, 2.0
SMALLEST, LARGEST = 0.05, 5.0
"""Noise levels, even in their logarithm; in ``shift`` up to four times as much."""
DATA = 1.5  # standard deviation of the points, roughly: what the network's input and output are scaled by
STEPS, ROWS, RATE = 1500, 512, 4e-3
LEVELS = (0.1, 0.3, 1.0, 3.0)  # of noise, at which the error is measured
NULLS = {"other-input": "outputs are paired with other points: nothing denoises them"}


@dataclass(frozen=True)
class Mixture:
    """π, μ of a mixture of round Gaussians in the plane, all of standard deviation `SPREAD`."""

    weights: Float[np.ndarray, " components"]
    means: Float[np.ndarray, "components 2"]

    @classmethod
    def of(cls, seed: int) -> Mixture:
        """Components around a circle, at angles and distances that are a little off, unequal in weight."""
        rng = Seed(seed).child("diffusion", "mixture").numpy()
        angle = (
            2
            * np.pi
            * (np.arange(COMPONENTS) + rng.uniform(-0.2, 0.2, COMPONENTS) + rng.random())
            / COMPONENTS
        )
        radius = RADIUS * rng.uniform(0.7, 1.2, COMPONENTS)
        weights = rng.uniform(0.5, 1.5, COMPONENTS)
        return cls(
            weights / weights.sum(), np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        )

    def draw(self, n: int, largest: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Points (n, 2), noise levels (n, 1), and the points with that noise."""
        weights = torch.from_numpy(self.weights).float()
        which = torch.multinomial(weights, n, replacement=True, generator=rng)
        clean = torch.from_numpy(self.means).float()[which] + SPREAD * torch.randn(n, 2, generator=rng)
        level = SMALLEST * (largest / SMALLEST) ** torch.rand(n, 1, generator=rng)
        return clean, level, clean + level * torch.randn(n, 2, generator=rng)


class LogShares(nn.Module):
    """log π_k − |x − μ_k|² / 2(s² + σ²), up to what all components have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.empty(COMPONENTS, 2))
        self.log_weights = nn.Parameter(torch.empty(COMPONENTS))

    def forward(self, x: Float[Tensor, "n 2"], sigma: Float[Tensor, "n 1"]) -> Float[Tensor, "n components"]:
        far = (x[:, None] - self.means).square().sum(dim=-1)
        return self.log_weights - far / (2 * (SPREAD**2 + sigma**2))


class Exact(nn.Module):
    """x (n, 2), sigma (n, 1) → the best guess of the clean point; ``shares`` are the components' posteriors."""

    def __init__(self) -> None:
        super().__init__()
        self.log_shares = LogShares()
        self.shares = nn.Softmax(dim=-1)
        self.centre = nn.Linear(COMPONENTS, 2, bias=False)

    def forward(self, x: Float[Tensor, "n 2"], sigma: Float[Tensor, "n 1"]) -> Float[Tensor, "n 2"]:
        centre: Tensor = self.centre(self.shares(self.log_shares(x, sigma)))
        return centre + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - centre)


class Denoiser(nn.Module):
    """x (n, 2), sigma (n, 1) → guess of the clean point, by two layers of ``act.0`` and ``act.1``.

    What goes in and comes out is scaled with the noise (Karras et al. 2022, table 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(3, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.act = nn.ModuleList([nn.SiLU(), nn.SiLU()])

    def forward(self, x: Float[Tensor, "n 2"], sigma: Float[Tensor, "n 1"]) -> Float[Tensor, "n 2"]:
        size = (sigma**2 + DATA**2).sqrt()
        seen = torch.cat([x / size, sigma.log() / 4], dim=-1)
        out = self.down(self.act[1](self.mid(self.act[0](self.up(seen)))))
        guess: Tensor = (DATA / size) ** 2 * x + sigma * DATA / size * out
        return guess


def network(seed: int = 0) -> tuple[Denoiser, Truth]:
    """The trained denoiser and what was measured of it, at each of four noise levels.

    Quantities ``best error S``, the mean squared error of the best guess; ``excess error S``, the mean squared
    distance of the network's guess from it; and ``trivial error S``, of guessing the noisy point scaled back.
    """
    module, exact, mixture = deepcopy(train(seed)), network_exact(seed)[0], Mixture.of(seed)
    quantities: dict[str, float] = {}
    rng = Seed(seed).child("diffusion", "measure").torch()
    with torch.no_grad():
        for level in LEVELS:
            clean, _, _ = mixture.draw(8192, LARGEST, rng)
            noisy, sigma = clean + level * torch.randn(8192, 2, generator=rng), torch.full((8192, 1), level)
            best = exact(noisy, sigma)
            trivial = DATA**2 / (DATA**2 + level**2) * noisy
            quantities[f"best error {level:g}"] = _squared(best - clean)
            quantities[f"excess error {level:g}"] = _squared(module(noisy, sigma) - best)
            quantities[f"trivial error {level:g}"] = _squared(trivial - clean)
    truth = Truth("diffusion-mlp", quantities=quantities, nulls=NULLS, size=f"two layers of {WIDTH} units")
    return module, truth


def network_exact(seed: int = 0) -> tuple[Exact, Truth]:
    """The best denoiser there is and its truth: Variables at ``shares``, one for each component's posterior."""
    mixture = Mixture.of(seed)
    with torch.device("meta"):
        module = Exact()
    state = {
        "log_shares.means": mixture.means,
        "log_shares.log_weights": np.log(mixture.weights),
        "centre.weight": mixture.means.T,
    }
    variables = tuple(
        Variable(
            "shares", k, "posterior", {"weight": float(w), "mean": [float(m) for m in mean], "spread": SPREAD}
        )
        for k, (w, mean) in enumerate(zip(mixture.weights, mixture.means, strict=True))
    )
    truth = Truth(
        "diffusion-exact", variables=variables, nulls=NULLS, size=f"a mixture of {COMPONENTS} in the plane"
    )
    return filled(module, state), truth


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def train(seed: int = 0) -> Denoiser:
    """Least squares on fresh noisy points, each weighted so that every noise level counts alike; Adam."""
    root = Seed(seed).child("diffusion", "train")
    mixture, module = Mixture.of(seed), _fresh(root.child("start")).train()
    rng = root.child("points").torch()

    def loss(_: int) -> Tensor:
        clean, sigma, noisy = mixture.draw(ROWS, LARGEST, rng)
        weight = (sigma**2 + DATA**2) / (sigma * DATA) ** 2
        error: Tensor = (weight * (module(noisy, sigma) - clean).square()).mean()
        return error

    descend(module.parameters(), STEPS, RATE, loss)
    return module.eval()


def build(seed: int = 0) -> tuple[Model, Truth]:
    """An MLP that learned to denoise a mixture of five Gaussians, measured against the best denoiser.

    Trained in a few seconds. Known: the best denoiser in closed form (the organism ``diffusion-exact``), and how far
    this one is from it at four noise levels. What its units stand for is not claimed.
    """
    return opened(network(seed), source(seed))


def build_exact(seed: int = 0) -> tuple[Model, Truth]:
    """The best denoiser of a mixture of five Gaussians, written down as a network.

    Known: unit k of ``shares`` is the posterior probability that the point came from component k.
    """
    return opened(network_exact(seed), source_exact(seed))


def points(
    name: str,
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 512,
    sealed: int = 512,
    shift: int = 512,
) -> StreamedSource:
    """Inputs ``x`` (n, 2) and ``sigma`` (n, 1): noisy points and their noise; more of it in ``shift``."""
    root, mixture = Seed(seed).child(name, "data"), Mixture.of(seed)

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        largest = LARGEST * (4.0 if part == "shift" else 1.0)
        _, sigma, noisy = mixture.draw(BLOCK, largest, root.child(part, block).torch())
        return {"x": noisy, "sigma": sigma}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of(name, seed, make, units)


source, source_exact = partial(points, "diffusion-mlp"), partial(points, "diffusion-exact")


def untrained(seed: int = 0) -> Denoiser:
    """The model null: the MLP before training."""
    return _fresh(Seed(seed).child("diffusion", "untrained"))


def untrained_exact(seed: int = 0) -> Exact:
    """The model null of ``diffusion-exact``: components anywhere, read as if they were elsewhere."""
    return redrawn(network_exact(0)[0], Seed(seed).child("diffusion-exact", "untrained"))


def _fresh(seed: Seed) -> Denoiser:
    with torch.device("meta"):
        module = Denoiser()
    sizes = {name: w.shape for name, w in module.state_dict().items()}
    state = {
        name: np.full(shape, shape[-1] ** -0.5 if len(shape) == 2 else 0.1) for name, shape in sizes.items()
    }
    return redrawn(filled(module, state), seed)


def _squared(x: Float[Tensor, "n 2"]) -> float:
    return float(x.square().sum(dim=-1).mean())
