"""Addition modulo a prime, learned: a network that first memorises its pairs and then generalises.

The network of `prosect.organisms.modular` trained on a share of all pairs with weight decay (Gromov 2023,
"Grokking modular arithmetic"). It answers every pair it never saw. What its neurons do is known only through
the same Fourier transform that a method under test would use, so the truth gives no variables: it says which
pairs were trained on and how often the network is right, and `Truth.unknown` is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, ProsectError
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.data.source import TableSource
from prosect.organisms.modular import Addition, assemble, cut
from prosect.organisms.opened import called, opened

if TYPE_CHECKING:
    from prosect.model import Model

RATE, BETAS, DECAY = 0.01, (0.9, 0.98), 1.0


@dataclass(frozen=True)
class Recipe:
    """Sizes that generalise within seconds.

    Attributes:
        neurons: hidden units.
        share: of all pairs that are trained on.
        steps: full-batch steps.
    """

    neurons: int
    share: float
    steps: int


RECIPES = {31: Recipe(128, 0.5, 1500), 59: Recipe(256, 0.4, 1000)}

Weights = tuple[Float[Tensor, "p neurons"], Float[Tensor, "p neurons"], Float[Tensor, "neurons p"]]
"""Both tables and the output weights."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The network as it was during training.

    Attributes:
        step: steps done; 0 before the first.
        weights: both tables and the output weights.
    """

    step: int
    weights: Weights

    @property
    def module(self) -> Addition:
        """The network with these weights."""
        return assemble(*(w.double().numpy() for w in self.weights))

    def model(self) -> Model:
        """The network opened for study."""
        pairs = source_grokked(p=len(self.weights[0]))
        return called(f"modular-grokked at step {self.step}", self.module, pairs)


def network_grokked(seed: int = 0, p: int = 31) -> tuple[Addition, Truth]:
    """The trained network and what is known of it.

    Args:
        seed: chooses the pairs and the initial weights.
        p: modulus, one of `RECIPES`.

    Raises:
        BadInput: there is no recipe for this modulus.
        ProsectError: the network does not answer every pair it never saw, after twice the recipe's steps.
    """
    recipe = _recipe(p)
    module = assemble(*(x.double().numpy() for x in _learned(seed, p, recipe)))
    everything = np.arange(p * p)
    pairs = torch.from_numpy(np.stack([everything // p, everything % p], axis=1))
    with torch.no_grad():
        right = (module(pairs).argmax(dim=1) == pairs.sum(dim=1) % p).numpy()
    if not right.all():
        raise ProsectError(f"modular-grokked with seed {seed} is wrong on {int((~right).sum())} pairs")
    labels = trained_on(seed, p)
    truth = Truth(
        organism="modular-grokked",
        unknown=True,
        labels={"trained": labels},
        quantities={
            "accuracy": float(right.mean()),
            "held-out accuracy": float(right[~labels].mean()),
            "chance": 1 / p,
            "modulus": float(p),
        },
        nulls={"other-input": "activations are paired with other pairs: no neuron depends on a or b"},
        size=f"modulus {p}, {recipe.neurons} neurons",
    )
    return module, truth


def checkpoints(seed: int = 0, p: int = 31, every: int = 50) -> Iterator[Checkpoint]:
    """The network through its training: before the first step, every so many steps, and at the end.

    Nothing is stored: the network is trained again as they are asked for, to the same weights as
    `network_grokked`'s.

    Args:
        seed: that of the network.
        p: modulus, one of `RECIPES`.
        every: steps between two checkpoints.

    Raises:
        BadInput: there is no recipe for this modulus, or ``every`` is below 1.
    """
    recipe = _recipe(p)
    if every < 1:
        raise BadInput(f"every={every}", "1 or more steps")
    last = None
    for step, weights in trajectory(p, recipe, _trained(seed, p), Seed(seed).child("grokked", p, "weights")):
        last = step, weights
        if step % every == 0:
            yield _kept(step, weights)
            last = None
    if last is not None:
        yield _kept(*last)


def untrained_grokked(seed: int = 0, p: int = 31) -> Addition:
    """The network before its first step: the null of what is learned.

    Raises:
        BadInput: there is no recipe for this modulus.
    """
    return next(checkpoints(seed, p)).module


def trained_on(seed: int = 0, p: int = 31) -> Bool[np.ndarray, " pairs"]:
    """Whether the network of a seed was trained on the pair (a, b), at a·p + b.

    Raises:
        BadInput: there is no recipe for this modulus.
    """
    _recipe(p)
    out = np.zeros(p * p, dtype=bool)
    out[_trained(seed, p)] = True
    return out


def build_grokked(seed: int = 0, p: int = 31) -> tuple[Model, Truth]:
    """Network trained on addition modulo a prime until it generalises.

    Full-batch AdamW on part of the pairs until every pair is right, as first seen by Power et al. 2022 ("Grokking").
    Known: which pairs it was trained on, and how often it is right. Its mechanism is not claimed to be known.
    """
    return opened(network_grokked(seed, p), source_grokked(seed, p=p))


def source_grokked(seed: int = 0, folds: int = 2, p: int = 31, explore: float = 0.4) -> TableSource:
    """Pairs for the network of the same seed, each in one part only.

    All parts but ``shift`` share out at random the pairs the network was trained on, so validation is in
    distribution; ``shift`` is every pair it never saw.

    Args:
        seed: that of the network.
        folds: validation folds.
        p: modulus.
        explore: share of the trained pairs; folds and ``sealed`` have equal shares of the rest.
    """
    _recipe(p)
    unseen = np.ones(p * p, dtype=bool)
    unseen[_trained(seed, p)] = False
    return cut(p, unseen, Seed(seed).child("grokked", p, "cut"), folds, explore)


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def _learned(seed: int, p: int, recipe: Recipe) -> Weights:
    return train(p, recipe, _trained(seed, p), Seed(seed).child("grokked", p, "weights"))


def train(p: int, recipe: Recipe, trained: Int[np.ndarray, " pairs"], seed: Seed) -> Weights:
    """Both tables and the output weights at the end of their `trajectory`."""
    *_, (_, weights) = trajectory(p, recipe, trained, seed)
    return weights


def trajectory(
    p: int, recipe: Recipe, trained: Int[np.ndarray, " pairs"], seed: Seed
) -> Iterator[tuple[int, Weights]]:
    """Full-batch AdamW (Loshchilov & Hutter 2019) on cross-entropy: the weights after every step, and before.

    The weights that are given go on changing; whoever keeps them keeps copies. The gradient is written out: the network is small enough that finding it would cost more than computing
    it. Training goes on for up to as many steps again while a pair that was not trained on is wrong.

    Args:
        p: modulus.
        recipe: sizes.
        trained: pairs (a, b) as a·p + b.
        seed: of the initial weights.
    """
    rng = seed.torch()
    a, b = (torch.randn(p, recipe.neurons, generator=rng) / p**0.5 for _ in range(2))
    out = torch.randn(recipe.neurons, p, generator=rng) / recipe.neurons**0.5
    weights = [a, b, out]
    mean, square = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    codes = torch.from_numpy(trained)
    one, two = codes // p, codes % p
    right = torch.zeros(len(codes), p).scatter_(1, ((one + two) % p)[:, None], 1.0)
    everything = torch.arange(p * p)
    sums = (everything // p + everything % p) % p

    yield 0, (a, b, out)
    for t in range(1, 2 * recipe.steps + 1):
        grads = gradient(a, b, out, one, two, right)
        for w, g, m, s in zip(weights, grads, mean, square, strict=True):
            w.mul_(1 - RATE * DECAY)
            m.lerp_(g, 1 - BETAS[0])
            s.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            spread = (s / (1 - BETAS[1] ** t)).sqrt_().add_(1e-8)
            w.addcdiv_(m, spread, value=-RATE / (1 - BETAS[0] ** t))
        yield t, (a, b, out)
        if t >= recipe.steps and t % 50 == 0:
            logits = (a[everything // p] + b[everything % p]).square() @ out
            if bool((logits.argmax(dim=1) == sums).all()):
                return


def gradient(
    a: Float[Tensor, "p neurons"],
    b: Float[Tensor, "p neurons"],
    out: Float[Tensor, "neurons p"],
    one: Int[Tensor, " n"],
    two: Int[Tensor, " n"],
    right: Float[Tensor, "n p"],
) -> tuple[Float[Tensor, "p neurons"], Float[Tensor, "p neurons"], Float[Tensor, "neurons p"]]:
    """Of the mean cross-entropy of (a[one] + b[two])² · out against the one-hot ``right``."""
    pre = a[one] + b[two]
    hidden = pre.square()
    delta = ((hidden @ out).softmax(dim=1) - right) / len(right)
    back = 2 * pre * (delta @ out.T)
    da = torch.zeros_like(a).index_add_(0, one, back)
    db = torch.zeros_like(b).index_add_(0, two, back)
    return da, db, hidden.T @ delta


def _kept(step: int, weights: Weights) -> Checkpoint:
    a, b, out = (w.clone() for w in weights)
    return Checkpoint(step, (a, b, out))


def _recipe(p: int) -> Recipe:
    if p not in RECIPES:
        raise BadInput(f"p={p}", f"a modulus with a recipe: {', '.join(map(str, RECIPES))}")
    return RECIPES[p]


def _trained(seed: int, p: int) -> Int[np.ndarray, " pairs"]:
    """The pairs that are trained on, as a·p + b."""
    order = Seed(seed).child("grokked", p, "pairs").numpy().permutation(p * p)
    return order[: round(RECIPES[p].share * p * p)]
