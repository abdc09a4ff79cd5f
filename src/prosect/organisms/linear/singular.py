"""``known-lambda`` and ``known-lambda-monomial``: models whose learning coefficient is known in closed form.

The learning coefficient λ of a model at its best parameters says how fast the volume of parameters shrinks as less
loss is allowed: volume ~ ε^λ (−log ε)^(m−1), with multiplicity m. In a regular model λ is half the number of
parameters; where parameters are redundant it is less (Watanabe 2009, "Algebraic Geometry and Statistical Learning
Theory"). Two models where it is known:

- reduced-rank regression y = B A x + noise, with A (h, inputs), B (outputs, h) and a true product of rank r:
  Aoyagi & Watanabe 2005, "Stochastic complexities of reduced rank regression in Bayesian estimation";
- y = u^a v^b x + noise where the true coefficient is zero: λ = min(1/2a, 1/2b), m = 2 if a = b and 1 if not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.filled import filled
from prosect.organisms.linear.normal import normal
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn

if TYPE_CHECKING:
    from prosect.model import Model

INPUTS, OUTPUTS, HIDDEN, RANK = 6, 5, 4, 2
POWERS = (1, 2)
NOISE = 1.0  # standard deviation of every answer around the model's


def reduced_rank(inputs: int, outputs: int, hidden: int, rank: int) -> tuple[float, int]:
    """λ and multiplicity of reduced-rank regression (Aoyagi & Watanabe 2005, main theorem).

    Args:
        inputs, outputs, hidden: sizes, at least 1.
        rank: of the true product, from 0 to the smallest of the three.

    Raises:
        BadInput: no such rank.
    """
    m, n, h, r = inputs, outputs, hidden, rank
    if not 0 <= r <= min(m, n, h) or min(m, n, h) < 1:
        raise BadInput(
            f"rank {r} with sizes {m}, {n} and {h}", "0 to the smallest of them, which is at least 1"
        )
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        odd = (m + h + n + r) % 2
        twice = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd
        return twice / 8, 1 + odd
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2, 1
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2, 1
    return m * n / 2, 1


def monomial(a: int, b: int) -> tuple[float, int]:
    """λ and multiplicity of u^a v^b where the true coefficient is zero."""
    return min(1 / (2 * a), 1 / (2 * b)), 2 if a == b else 1


class ReducedRank(nn.Module):
    """inputs (n, 6) → ``narrow`` (n, 4) → outputs (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(INPUTS, HIDDEN, bias=False)
        self.wide = nn.Linear(HIDDEN, OUTPUTS, bias=False)

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        return self.wide(self.narrow(inputs))  # type: ignore[no-any-return]


class Monomial(nn.Module):
    """inputs (n, 1) → u^a v^b · inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.out = nn.Identity()

    def forward(self, inputs: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        return self.out(self.u ** POWERS[0] * self.v ** POWERS[1] * inputs)  # type: ignore[no-any-return]


def network(seed: int = 0) -> tuple[ReducedRank, Truth]:
    """Reduced-rank regression at a true parameter. Quantities: ``lambda``, ``multiplicity``, ``parameters``."""
    rng = Seed(seed).child("known-lambda", "weights").numpy()
    a, b = np.zeros((HIDDEN, INPUTS)), np.zeros((OUTPUTS, HIDDEN))
    a[:RANK], b[:, :RANK] = rng.standard_normal((RANK, INPUTS)), rng.standard_normal((OUTPUTS, RANK))
    turn = np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0]
    with torch.device("meta"):
        module = ReducedRank()
    filled(module, {"narrow.weight": turn @ a, "wide.weight": b @ turn.T})
    size = f"{INPUTS} → {HIDDEN} → {OUTPUTS}, true rank {RANK}"
    return module, _truth("known-lambda", *reduced_rank(INPUTS, OUTPUTS, HIDDEN, RANK), module, size)


def network_monomial(seed: int = 0) -> tuple[Monomial, Truth]:
    """u v² x at u = v = 0, the most singular of its true parameters. The seed changes nothing."""
    with torch.device("meta"):
        module = Monomial()
    filled(module, {"u": np.zeros(1), "v": np.zeros(1)})
    a, b = POWERS
    return module, _truth("known-lambda-monomial", *monomial(a, b), module, f"u^{a} v^{b}")


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Reduced-rank regression at a true parameter, with its learning coefficient in closed form.

    Drawn, not trained. Known: λ and its multiplicity (Aoyagi & Watanabe 2005), beside half the number of
    parameters, which it would be if the model were regular. `answers` are what a posterior is conditioned on.
    """
    return opened(network(seed), source(seed))


def build_monomial(seed: int = 0) -> tuple[Model, Truth]:
    """u v² x where the true coefficient is zero: the smallest model that is singular, with λ = ¼.

    Written down. Known: λ and its multiplicity (Watanabe 2009, the normal crossing).
    """
    return opened(network_monomial(seed), source_monomial(seed))


def answers(module: nn.Module, inputs: Float[Tensor, "n inputs"], seed: Seed) -> Float[Tensor, "n outputs"]:
    """What the model says and independent noise of variance 1, so that the loss in nats is half the squared error."""
    with torch.no_grad():
        said: Tensor = module(inputs)
    return said + NOISE * torch.randn(said.shape, generator=seed.torch())


source = partial(normal, "known-lambda", INPUTS)
source_monomial = partial(normal, "known-lambda-monomial", 1)


def untrained(seed: int = 0) -> ReducedRank:
    """The model null: random weights of the same size, of full rank."""
    return redrawn(network(0)[0], Seed(seed).child("known-lambda", "untrained"))


def untrained_monomial(seed: int = 0) -> Monomial:
    """The model null: u and v of either sign and about 1, where the model is regular."""
    module = network_monomial(0)[0]
    with torch.no_grad():
        for weights in module.parameters():
            weights.fill_(1.0)
    return redrawn(module, Seed(seed).child("known-lambda-monomial", "untrained"))


def _truth(name: str, value: float, multiplicity: int, module: nn.Module, size: str) -> Truth:
    n = sum(p.numel() for p in module.parameters())
    return Truth(
        organism=name,
        quantities={
            "lambda": value,
            "multiplicity": float(multiplicity),
            "parameters": float(n),
            "lambda if regular": n / 2,
        },
        nulls={"regular": "weights of full rank, where λ is that of a regular model"},
        size=size,
    )
