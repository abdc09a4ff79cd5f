"""Shapley values: exact by enumeration, or sampled with a standard error for every value.

Shapley 1953; as attribution, Lundberg & Lee 2017, "A unified approach to interpreting model predictions".
Permutations are sampled with their reverses (Mitchell et al. 2022, "Sampling permutations for Shapley value
estimation", section 4.1); the kernel estimator is the least-squares one with paired coalitions (Covert & Lee
2021, "Improving KernelSHAP", equation 8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.describe.attribution.coalitions import WORDS, Game
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference

HOWS = ("auto", "exact", "permutation", "kernel")
MOST_EXACT = 12
BLOCKS = 20
"""Groups of coalition pairs of which one at a time is left out, for the kernel estimator's standard error."""
Found = tuple[Float[np.ndarray, " players"], Float[np.ndarray, " players"]]


@dataclass(frozen=True)
class Shapley:
    """Shapley values of the game v(S).

    Attributes:
        how: exact enumerates all coalitions; auto does so up to 12 players and samples permutations beyond.
        pairs: permutations with their reverses, or coalitions with their complements, that are sampled; None
            for 32 permutations, or 16 coalitions for each player.
    """

    how: str = "auto"
    pairs: int | None = None
    name: str = "shapley"
    gradient: bool = False
    several: bool = True

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise UnknownName("way to Shapley values", self.how, HOWS)
        if self.pairs is not None and self.pairs < 2:
            raise BadInput(f"{self.pairs} pairs", "at least 2, or there is no standard error")

    @property
    def words(self) -> str:
        """What a value means."""
        return f"Shapley value, where {WORDS}; values add up to f(x) − E f(reference)"

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """For each row and point of the reference: 2^players forward passes, or as many as are sampled."""
        shape = (len(explicand), explicand.features.count)
        values, errors, promised = np.zeros(shape), np.zeros(shape), np.zeros(shape[0])
        ways: dict[str, int] = {}
        for row in range(shape[0]):
            game = Game(explicand, reference, row)
            how = self._way(game.size)
            ways[how] = ways.get(how, 0) + 1
            ends = game.value(np.array([[False] * game.size, [True] * game.size]))
            promised[row] = ends[1] - ends[0]
            players = game.players.numpy()
            found, error = _WAYS[how](game, ends, self.pairs, seed.child(row))
            values[row, players], errors[row, players] = found, error
        notes = tuple(f"{how} for {n} of {shape[0]} rows" for how, n in ways.items())
        return Scores(values, promised, None if set(ways) <= {"exact"} else errors, notes=notes)

    def _way(self, players: int) -> str:
        if self.how == "exact" and players > MOST_EXACT:
            raise BadInput(
                f"{players} features to enumerate", f"at most {MOST_EXACT}", "how='permutation', or groups"
            )
        if self.how == "auto" or players < 3:
            return "exact" if players <= MOST_EXACT else "permutation"
        return self.how


def exact(game: Game, ends: Float[np.ndarray, " 2"], pairs: int | None, seed: Seed) -> Found:
    """Every coalition: the definition."""
    n = game.size
    number = np.arange(2**n)
    member = (number[:, None] >> np.arange(n)) & 1 == 1
    v = game.value(member)
    size = member.sum(axis=1)
    share = np.array([1.0 / (n * math.comb(n - 1, s)) for s in range(n)]) if n else np.zeros(0)
    out = np.zeros(n)
    for i in range(n):
        without = number[~member[:, i]]
        out[i] = share[size[without]] @ (v[without | (1 << i)] - v[without])
    return out, np.zeros(n)


def permutation(game: Game, ends: Float[np.ndarray, " 2"], pairs: int | None, seed: Seed) -> Found:
    """Mean marginal contribution over random orders; every order counts with its reverse."""
    n, count = game.size, 32 if pairs is None else pairs
    rng = seed.numpy()
    orders = np.stack([rng.permutation(n) for _ in range(count)])
    orders = np.stack([orders, orders[:, ::-1]], axis=1)  # (pairs, 2, players)
    rank = orders.argsort(axis=-1)
    sizes = np.arange(1, n)
    known = rank[:, :, None, :] < sizes[:, None]  # (pairs, 2, sizes, players)
    between = game.value(known.reshape(-1, n)).reshape(count, 2, n - 1)
    first, last = np.full((count, 2, 1), ends[0]), np.full((count, 2, 1), ends[1])
    gains = np.diff(np.concatenate([first, between, last], axis=-1), axis=-1)
    each = np.take_along_axis(gains, rank, axis=-1).mean(axis=1)  # (pairs, players)
    return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(count)


def kernel(game: Game, ends: Float[np.ndarray, " 2"], pairs: int | None, seed: Seed) -> Found:
    """Least squares on random coalitions, each with its complement, under the constraint of efficiency.

    The standard error is a jackknife over `BLOCKS` groups of pairs.
    """
    n = game.size
    count = 16 * n if pairs is None else pairs
    drawn = _coalitions(n, count, seed)
    both = np.stack([drawn, ~drawn], axis=1)
    v = game.value(both.reshape(-1, n)).reshape(count, 2) - ends[0]
    z = both.astype(float)
    blocks = min(BLOCKS, count)
    block = np.arange(count) % blocks
    gram = np.stack([np.einsum("pki,pkj->ij", z[block == b], z[block == b]) for b in range(blocks)])
    right = np.stack([np.einsum("pki,pk->i", z[block == b], v[block == b]) for b in range(blocks)])
    total = float(ends[1] - ends[0])
    whole = _solved(gram.sum(axis=0), right.sum(axis=0), total, count)
    left = np.stack(
        [
            _solved(gram.sum(axis=0) - g, right.sum(axis=0) - r, total, count)
            for g, r in zip(gram, right, strict=True)
        ]
    )
    spread = np.square(left - left.mean(axis=0)).sum(axis=0) * (blocks - 1) / blocks
    return whole, np.sqrt(spread)


def _coalitions(players: int, count: int, seed: Seed) -> Bool[np.ndarray, "count players"]:
    """Coalitions drawn with the probability that the Shapley kernel gives them."""
    rng = seed.numpy()
    sizes = np.arange(1, players)
    weight = 1.0 / (sizes * (players - sizes))
    size = rng.choice(sizes, size=count, p=weight / weight.sum())
    return rng.random((count, players)).argsort(axis=1).argsort(axis=1) < size[:, None]


def _solved(
    gram: Float[np.ndarray, "n n"], right: Float[np.ndarray, " n"], total: float, pairs: int
) -> Float[np.ndarray, " n"]:
    """The least-squares values that add up to ``total``."""
    if np.linalg.matrix_rank(gram) < len(gram):
        raise BadInput(
            f"{pairs} pairs of coalitions of {len(gram)} features, which leave values undetermined",
            f"about {4 * len(gram)} or more",
        )
    solved = np.linalg.solve(gram, np.stack([right, np.ones(len(gram))], axis=1))
    return np.asarray(solved[:, 0] - solved[:, 1] * (solved[:, 0].sum() - total) / solved[:, 1].sum())


_WAYS = {"exact": exact, "permutation": permutation, "kernel": kernel}
