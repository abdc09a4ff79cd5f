"""The toy model of superposition (Elhage et al. 2022, "Toy Models of Superposition"): five features, two units.

relu(W Wᵀ x + b) learns to give its inputs back. Where features are rare it packs all five as the corners of
a regular pentagon, each with 2/5 of a dimension; where all are always present and differ in importance it
keeps the two most important ones and drops the rest. The second network is the control of the first.

Training takes about a second: a few networks side by side, with the gradient written out, and the one with
the lowest loss on inputs that none was trained on is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth
from prosect.organisms.opened import opened
from prosect.organisms.sources import BLOCK, StreamedSource, parts
from prosect.organisms.superposition import Superposition, assemble

if TYPE_CHECKING:
    from prosect.model import Model

FEATURES, WIDTH = 5, 2
SPARSE, DENSE = 0.05, 1.0
IMPORTANCE = 0.7
COPIES, STEPS, ROWS, RATE = 4, 4000, 256, 4e-3
START = 0.5  # standard deviation of the weights before training
CHUNK = 250  # steps whose inputs are drawn at once


def network_pentagon(seed: int = 0) -> tuple[Superposition, Truth]:
    """The network trained on rare features, and its truth: every pair of neighbours is 72° apart."""
    return _network("pentagon", seed, SPARSE, 1.0)


def network_dense(seed: int = 0) -> tuple[Superposition, Truth]:
    """The control, trained on features that are always there: two are represented, three are not.

    Which is which is in the truth's label ``represented``; its directions are those two, in order.
    """
    return _network("pentagon-dense", seed, DENSE, IMPORTANCE)


def untrained_pentagon(seed: int = 0) -> Superposition:
    """The model null: a network as it is before training, drawn from another stream."""
    rng = Seed(seed).child("pentagon", "untrained").numpy()
    return assemble(START * rng.standard_normal((FEATURES, WIDTH)), np.zeros(FEATURES))


def build_pentagon(seed: int = 0) -> tuple[Model, Truth]:
    """Toy model of superposition: five features in two dimensions.

    Trained for about a second on rare features (Elhage et al. 2022, "Toy Models of Superposition"). Known: the five
    directions it ends with, the corners of a regular pentagon, each with 2/5 of a dimension.
    """
    return opened(network_pentagon(seed), source_pentagon(seed))


def source_pentagon(
    seed: int = 0,
    folds: int = 2,
    explore: int = 16_384,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
    *,
    density: float = SPARSE,
) -> StreamedSource:
    """Inputs ``features`` (n, 5): each is present with probability ``density`` and then uniform in [0, 1].

    In ``shift`` features are present four times as often (always, for the dense control).
    """
    root = Seed(seed).child("toy", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        often = min(4 * density, 1.0) if part == "shift" else density
        return {"features": draw(BLOCK, often, root.child(part, block).torch())}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("pentagon", seed, make, units, density=density)


def draw(n: int, density: float, rng: torch.Generator) -> Float[Tensor, "n 5"]:
    """``n`` inputs."""
    present = torch.rand(n, FEATURES, generator=rng) < density
    return torch.rand(n, FEATURES, generator=rng) * present


def dimensionality(directions: Float[np.ndarray, "features width"]) -> Float[np.ndarray, " features"]:
    """How much of a dimension each feature has: ‖Wᵢ‖² / Σⱼ (Ŵᵢ · Wⱼ)²; 0 for a feature without direction.

    Elhage et al. 2022, section "The Geometry of Superposition".
    """
    norm = np.linalg.norm(directions, axis=1)
    unit = np.divide(directions, norm[:, None], out=np.zeros_like(directions), where=norm[:, None] > 0)
    shared = np.square(np.einsum("id,jd->ij", unit, directions)).sum(axis=1)
    return np.asarray(np.divide(norm**2, shared, out=np.zeros_like(norm), where=shared > 0))


def gradient(
    theta: Float[Tensor, "copies parameters features"],
    x: Float[Tensor, "n features"],
    weight: Float[Tensor, " features"],
) -> Float[Tensor, "copies parameters features"]:
    """Of the mean over inputs and features of weight · (relu(W Wᵀ x + b) − x)².

    Args:
        theta: W as two rows and b as the third, for every copy.
        x: inputs, the same for all copies.
        weight: importance of each feature.
    """
    w, b = theta[:, :WIDTH], theta[:, WIDTH:]
    hidden = x @ w.transpose(1, 2)
    out = torch.baddbmm(b, hidden, w).relu_()
    delta = (out - x) * (2.0 / x.numel() * weight) * (out > 0)
    back = delta @ w.transpose(1, 2)
    dw = hidden.transpose(1, 2) @ delta + back.transpose(1, 2) @ x
    return torch.cat([dw, delta.sum(dim=1, keepdim=True)], dim=1)


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on one tensor; a third of the time of the general one."""

    def __init__(self, theta: Tensor) -> None:
        self.theta, self.mean, self.square = theta, torch.zeros_like(theta), torch.zeros_like(theta)
        self.t = 0

    def step(self, grad: Tensor, rate: float) -> None:
        self.t += 1
        self.mean.lerp_(grad, 0.1)
        self.square.mul_(0.999).addcmul_(grad, grad, value=0.001)
        scale = (self.square / (1 - 0.999**self.t)).sqrt_().add_(1e-8)
        self.theta.addcdiv_(self.mean, scale, value=-rate / (1 - 0.9**self.t))


def train(
    seed: Seed, density: float, importance: float
) -> tuple[Float[np.ndarray, "features width"], Float[np.ndarray, " features"]]:
    """W and b of the best of `COPIES` networks, trained with a rate that falls linearly to zero."""
    rng = seed.torch()
    theta = torch.zeros(COPIES, WIDTH + 1, FEATURES)
    theta[:, :WIDTH] = START * torch.randn(COPIES, WIDTH, FEATURES, generator=rng)
    weight = importance ** torch.arange(float(FEATURES))
    adam = Adam(theta)
    for _ in range(STEPS // CHUNK):
        for x in draw(CHUNK * ROWS, density, rng).view(CHUNK, ROWS, FEATURES):
            adam.step(gradient(theta, x, weight), RATE * (1 - adam.t / STEPS))
    x = draw(16_384, density, rng)
    w, b = theta[:, :WIDTH], theta[:, WIDTH:]
    loss = ((torch.baddbmm(b, x @ w.transpose(1, 2), w).relu() - x).square() * weight).mean(dim=(1, 2))
    best = int(loss.argmin())
    return w[best].T.double().numpy(), b[best, 0].double().numpy()


def _network(name: str, seed: int, density: float, importance: float) -> tuple[Superposition, Truth]:
    directions, bias = train(Seed(seed).child(name, "train"), density, importance)
    norm = np.linalg.norm(directions, axis=1)
    there = norm > 0.5
    n = int(there.sum())
    features = FeatureDirections("hidden", directions[there] / norm[there, None], np.full(n, density))
    truth = Truth(
        organism=name,
        features=(features,),
        labels={"represented": there},
        quantities={
            "features": float(FEATURES),
            "width": float(WIDTH),
            "dimensionality": WIDTH / n,
            "degrees between neighbours": 360.0 / n if n > WIDTH else 90.0,
        },
        nulls={
            "other-input": "hidden layers are paired with other inputs: no direction says anything about a "
            "feature"
        },
        size=f"{WIDTH} hidden units, {FEATURES} features",
    )
    return assemble(directions, bias), truth
