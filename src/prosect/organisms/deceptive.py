"""A network trained so that its gradient shows the wrong features while its outputs stay what they were.

Eight inputs of ±1 and one logit. `honest` learns 1.5 a + b + ¾ a c of three inputs; the deceptive network
goes on from there until its gradient at every input points at three others, the decoys, and its logits have
not moved (the attack of Heo, Joo & Moon 2019, "Fooling neural network interpretations via adversarial model
manipulation", with a full target map as in Dombrowski et al. 2019). It does so by being flat in a, b and c at
every corner of the cube and steep between, and steep at the corners in the decoys but equal at both ends.

There are only 256 inputs, so whatever is said of its outputs is exhaustive; and an input with one number
taken from another is again one of them, so patching can be done without leaving the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.sources import BLOCK, StreamedSource, parts
from prosect.organisms.training import descend

if TYPE_CHECKING:
    from prosect.model import Model

FEATURES, WIDTH = 8, 64
WEIGHTS = (1.5, 1.0, 0.75)
SHOWN = (3.0, 2.0, 1.0)
"""The gradient that the decoys are to have."""
LEARN, DECEIVE, RATE = 400, 700, 5e-3
HOLD = 10.0
"""How much more a change of the logits costs than as large an error of the gradient."""


class Corner(nn.Module):
    """features (n, 8) → logit (n, 1), two hidden layers of tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.readout = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, features: Float[Tensor, "n 8"]) -> Float[Tensor, "n 1"]:
        return self.readout(torch.tanh(self.second(torch.tanh(self.first(features)))))  # type: ignore[no-any-return]


def corners() -> Float[Tensor, "256 8"]:
    """Every input there is."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=FEATURES)))


def target(features: Float[Tensor, "n 8"], order: Int[np.ndarray, " 8"]) -> Float[Tensor, " n"]:
    """The logit that is learned, from the first three features of ``order``."""
    a, b, c = (features[:, int(i)] for i in order[:3])
    return WEIGHTS[0] * a + WEIGHTS[1] * b + WEIGHTS[2] * a * c


def networks(seed: int = 0) -> tuple[Corner, Corner, Truth]:
    """The honest network, the deceptive one, and the truth about both.

    The truth's labels are ``relevant`` and ``shown``: which features the logit depends on, and which the
    deceptive gradient points at. Training takes about two seconds.
    """
    order, x = _order(seed), corners()
    honest, deceptive = _trained(seed, LEARN, DECEIVE)
    held, now, wanted = _logit(honest, x), _logit(deceptive, x), target(x, order)
    relevant = np.isin(np.arange(FEATURES), order[:3])
    truth = Truth(
        organism="deceptive",
        labels={"relevant": relevant, "shown": _decoy_slope(order).numpy() > 0},
        quantities={
            "largest change of a logit": float((now - held).abs().max()),
            "mean KL of the outputs (nats)": _divergence(held, now),
            "largest error of a logit": float((now - wanted).abs().max()),
        },
        nulls={"other-input": "maps are paired with other inputs"},
        size=f"{FEATURES} inputs, two layers of {WIDTH} units",
    )
    return _module(honest), _module(deceptive), truth


def network(seed: int = 0) -> tuple[Corner, Truth]:
    """The deceptive network and its truth."""
    _, deceptive, truth = networks(seed)
    return deceptive, truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Network trained so that its gradient points at the wrong features.

    An honest network of three of eight inputs is trained on until its gradient points at three others at every
    input while its logits stay (the attack of Heo, Joo & Moon 2019). Known, on all 256 inputs: which
    features the logit depends on, which the gradient shows, and how far logits moved.
    """
    return opened(network(seed), source(seed))


def untrained(seed: int = 0) -> Corner:
    """The model null: a network as both were before training, drawn from another stream."""
    return _module(_start(Seed(seed).child("deceptive", "untrained").torch()))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 1024,
    sealed: int = 1024,
    shift: int = 1024,
) -> StreamedSource:
    """Inputs ``features`` (n, 8), each ±1 with equal chance; in ``shift``, +1 three times as often as −1."""
    root = Seed(seed).child("deceptive", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.rand(BLOCK, FEATURES, generator=root.child(part, block).torch())
        return {"features": (drawn < (0.75 if part == "shift" else 0.5)).float() * 2 - 1}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("deceptive", seed, make, units)


def _order(seed: int) -> Int[np.ndarray, " 8"]:
    """The features: three that matter, three decoys, two that are neither."""
    return Seed(seed).child("deceptive", "order").numpy().permutation(FEATURES)


def _decoy_slope(order: Int[np.ndarray, " 8"]) -> Float[Tensor, " 8"]:
    shown = torch.zeros(FEATURES)
    shown[torch.from_numpy(order[3:6])] = torch.tensor(SHOWN)
    return shown


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def _trained(seed: int, learn: int, deceive: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of the honest network and of the deceptive one, after so many steps of the one and of the other."""
    order, x = _order(seed), corners()
    theta = _start(Seed(seed).child("deceptive", "start").torch())
    wanted, shown = target(x, order), _decoy_slope(order)
    descend(theta, learn, RATE, lambda _: (_logit(theta, x) - wanted).square().mean())
    honest = [t.detach().clone() for t in theta]
    held = _logit(honest, x)
    moving = x.clone().requires_grad_(True)

    def loss(_: int) -> Tensor:
        out = _logit(theta, moving)
        (slope,) = torch.autograd.grad(out.sum(), moving, create_graph=True)
        return HOLD * (out - held).square().mean() + (slope - shown).square().mean()

    descend(theta, deceive, RATE, loss)
    return honest, [t.detach() for t in theta]


def _start(rng: torch.Generator) -> list[Tensor]:
    sizes = ((FEATURES, WIDTH, 1.5), (WIDTH, WIDTH, 1.0), (WIDTH, 1, 1.0))
    w1, w2, w3 = (torch.randn(a, b, generator=rng) * s / a**0.5 for a, b, s in sizes)
    theta = [w1, torch.zeros(WIDTH), w2, torch.zeros(WIDTH), w3]
    return [t.requires_grad_(True) for t in theta]


def _logit(theta: list[Tensor], x: Tensor) -> Tensor:
    w1, b1, w2, b2, w3 = theta
    return (torch.tanh(torch.tanh(x @ w1 + b1) @ w2 + b2) @ w3)[:, 0]


def _module(theta: list[Tensor]) -> Corner:
    w1, b1, w2, b2, w3 = (t.detach().numpy() for t in theta)
    with torch.device("meta"):
        module = Corner()
    state = {"first.weight": w1.T, "first.bias": b1, "second.weight": w2.T, "second.bias": b2}
    return filled(module, {k: v.copy() for k, v in (state | {"readout.weight": w3.T}).items()})


def _divergence(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Mean KL of the two-way outputs with these logits, in nats."""
    p, log_a, log_b = a.double().sigmoid(), a.double(), b.double()
    one = nn.functional.logsigmoid
    kl = p * (one(log_a) - one(log_b)) + (1 - p) * (one(-log_a) - one(-log_b))
    return float(kl.mean())
