"""Synthetic activations of any size whose features are known: frequent and rare, correlated, in hierarchies.

x = Σ s_i d_i + noise with random unit directions d_i and sparse non-negative strengths s_i. Nothing is kept but
the block in hand, so there are as many rows as are asked for, and every row comes with the features that made it.

How often a feature fires falls with its rank by a power law between two ends. Some features stand in trees: a
child fires only where its parent does, and of the children of one parent at most one fires at a time (or each on
its own). All other features, and the roots of trees, fire together more or less often than chance by a Gaussian
copula whose correlations have low rank. Every firing rate and every pair of roots therefore has a closed form.
The sizes of `LARGE` are those of SynthSAEBench-16k, where about 34 features are active at once; how they are drawn is
our own, so figures are near those published on it and not to be set against them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth

SITE = "x"
ENTRIES = 2**23
"""Rows times features made at a time: what bounds memory."""


@dataclass(frozen=True)
class World:
    """What kind of features there are.

    Attributes:
        features: how many.
        width: dimensions of the activations.
        most: firing rate asked of the most frequent feature.
        least: that of the rarest; equal to ``most`` where all are to fire alike.
        exponent: of the power law between them.
        trees: trees of features; 0 for none.
        branching: children of each feature of a tree that has any.
        depth: levels below a root.
        exclusive: whether at most one child of a parent fires at a time.
        alone: share of a parent's firing at which no child fires, at least, where they exclude each other; without
            any, nothing would tell a parent from its children together.
        rank: of the correlations between features outside trees and roots; 0 for independence.
        loading: standard deviation of each entry of the factors behind the correlations.
        strengths: mean strength of the most frequent and of the rarest feature while they fire.
        noise: standard deviation in each dimension.
    """

    features: int = 1024
    width: int = 128
    most: float = 0.4
    least: float = 5e-4
    exponent: float = 0.5
    trees: int = 8
    branching: int = 4
    depth: int = 3
    exclusive: bool = True
    alone: float = 0.1
    rank: int = 25
    loading: float = 0.1
    strengths: tuple[float, float] = (5.0, 4.0)
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.features < 1 or self.width < 1:
            raise BadInput(f"{self.features} features in {self.width} dimensions", "at least 1 of each")
        if not 0 < self.least <= self.most <= 0.5:
            raise BadInput(f"firing rates from {self.most:g} to {self.least:g}", "0 < least ≤ most ≤ 0.5")
        if self.exponent <= 0 or self.noise < 0 or self.loading < 0 or min(self.strengths) <= 0:
            raise BadInput(
                f"exponent {self.exponent:g}, noise {self.noise:g}, loading {self.loading:g}, strengths "
                f"{self.strengths}",
                "exponent and strengths above 0, the others not below 0",
            )
        if not 0 <= self.alone < 1:
            raise BadInput(f"a parent alone in {self.alone:g} of its firing", "a share from 0 to below 1")
        if min(self.trees, self.depth, self.rank) < 0 or self.branching < 1:
            raise BadInput(
                f"{self.trees} trees, branching {self.branching}, depth {self.depth}, rank {self.rank}",
                "none below 0, branching at least 1",
            )
        if self.in_trees > self.features:
            raise BadInput(
                f"{self.in_trees} features in trees of {self.features}",
                "at most all",
                "fewer or smaller trees",
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Features of all trees on each level, roots first."""
        return (
            tuple(self.trees * self.branching**level for level in range(self.depth + 1)) if self.trees else ()
        )

    @property
    def in_trees(self) -> int:
        """Features that stand in a tree."""
        return sum(self.levels)


LARGE = World(features=16384, width=768, trees=128, alone=0.0)
"""The size at which published results exist, with about 31 features active at once; `World()` is a sixteenth of it."""


@dataclass(frozen=True, eq=False)
class Planted:
    """The features themselves; make them with `plant`.

    Features are in the order of the rates asked for, the most frequent first. Those in trees come first, level by
    level, so that what is general is frequent, the children of feature i of one level side by side at
    ``branching`` · i of the next; then those outside trees.

    Attributes:
        world: what was asked for.
        seed: of everything.
        directions: unit vectors.
        rates: how often each fires; where siblings exclude each other or a parent is rare, less than asked.
        asked: the rates that the power law asks for.
        parents: the parent of each, -1 without one.
        given: probability of firing where the parent fires; without a parent, the rate.
        strength: mean strength before clipping at 0.
        spread: standard deviation of the strength.
        factors: of the copula, for roots and features outside trees; their row i belongs to ``free[i]``.
    """

    world: World
    seed: Seed
    directions: Float[Tensor, "features width"]
    rates: Float[np.ndarray, " features"]
    asked: Float[np.ndarray, " features"]
    parents: Int[np.ndarray, " features"]
    given: Float[np.ndarray, " features"]
    strength: Float[Tensor, " features"]
    spread: Float[Tensor, " features"]
    factors: Float[np.ndarray, "free rank"]

    @cached_property
    def free(self) -> Int[np.ndarray, " free"]:
        """Roots and features outside trees."""
        return np.flatnonzero(self.parents < 0)

    @property
    def active(self) -> float:
        """Features active at once, on average."""
        return float(self.rates.sum())

    def truth(self) -> Truth:
        """Directions and rates at `SITE`, the parent of each feature, and the sizes."""
        world = self.world
        return Truth(
            organism="synthetic",
            features=(FeatureDirections(SITE, self.directions.double().numpy(), self.rates),),
            labels={"parent": self.parents},
            quantities={
                "features": float(world.features),
                "width": float(world.width),
                "active": self.active,
            },
            size=f"{world.features} features in {world.width} dimensions, {self.active:.1f} active at once",
        )

    def stream(self, rows: int, part: str = "explore") -> PlantedStream:
        """Rows with their labels; parts of different names share nothing but the features.

        Raises:
            BadInput: fewer than one row.
        """
        return PlantedStream(self, rows, part)

    def firing(self, n: int, generator: torch.Generator) -> Int[Tensor, "2 events"]:
        """Draw which features fire in ``n`` rows: (row, feature) of each event, by row."""
        world, at = self.world, torch.from_numpy(self.free)
        on = torch.zeros((n, world.features), dtype=torch.bool)
        bar = torch.special.ndtri(1.0 - torch.from_numpy(self.given[self.free])).float()
        own = torch.from_numpy(np.sqrt(1.0 - np.square(self.factors).sum(axis=1))).float()
        hidden = own * torch.randn((n, len(at)), generator=generator)
        if world.rank:
            common = torch.randn((n, world.rank), generator=generator)
            hidden += common @ torch.from_numpy(self.factors).float().T
        on[:, at] = hidden > bar
        given, start, b = torch.from_numpy(self.given).float(), 0, world.branching
        for parents, children in zip(world.levels[:-1], world.levels[1:], strict=True):
            below = slice(start + parents, start + parents + children)
            chance = given[below].view(parents, b)
            if world.exclusive:
                drawn = torch.rand((n, parents, 1), generator=generator)
                ends = chance.cumsum(dim=1)
                chosen = (drawn < ends) & (drawn >= ends - chance)
            else:
                chosen = torch.rand((n, parents, b), generator=generator) < chance
            on[:, below] = (chosen & on[:, start : start + parents, None]).flatten(1)
            start += parents
        return on.nonzero().T


@dataclass(frozen=True, eq=False)
class PlantedStream:
    """Activations at `SITE` made as they are read, each row drawn independently.

    Args:
        planted: the features.
        rows: how many rows in each epoch.
        part: name of the rows: another name gives others.
        order: shuffles the blocks, anew in each epoch; rows are exchangeable, so that is all a shuffle can do.
        epochs: how often `blocks` goes through all rows.
    """

    planted: Planted
    rows: int
    part: str = "explore"
    order: Seed | None = None
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.epochs < 1:
            raise BadInput(f"{self.rows} rows and {self.epochs} epochs", "at least 1 of each")

    @property
    def sites(self) -> tuple[str, ...]:
        """The one site."""
        return (SITE,)

    @property
    def widths(self) -> dict[str, int]:
        """Its width."""
        return {SITE: self.planted.world.width}

    @property
    def features(self) -> int:
        """How many features labels speak of."""
        return self.planted.world.features

    @property
    def digest(self) -> str:
        """Of everything that determines the rows and their order."""
        return digest(
            {
                "organism": "synthetic",
                "world": asdict(self.planted.world),
                "seed": self.planted.seed,
                "rows": self.rows,
                "part": self.part,
                "order": self.order,
                "epochs": self.epochs,
                "version": 1,
            }
        )

    @property
    def block(self) -> int:
        """Rows in a block."""
        return max(1, min(8192, ENTRIES // self.features))

    def __len__(self) -> int:
        return self.rows * self.epochs

    def shuffled(self, seed: Seed, epochs: int = 1) -> PlantedStream:
        """The same rows, blocks in an order drawn from ``seed``, another one in each epoch."""
        return replace(self, order=seed, epochs=epochs)

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """Activations in blocks."""
        for x, _, _ in self.labelled():
            yield x

    def labelled(
        self,
    ) -> Iterator[tuple[dict[str, Float[Tensor, "n _"]], Int[Tensor, "n k"], Float[Tensor, "n k"]]]:
        """Activations with what made them: features and strengths; a strength of 0 fills up a row."""
        count = -(-self.rows // self.block)
        for epoch in range(self.epochs):
            numbers = np.arange(count)
            if self.order is not None:
                numbers = self.order.child("epoch", epoch).numpy().permutation(count)
            for number in numbers.tolist():
                yield self._made(number)

    def _made(self, number: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        planted = self.planted
        n = min(self.block, self.rows - number * self.block)
        generator = planted.seed.child("rows", self.part, number).torch()
        row, feature = planted.firing(n, generator)
        size = torch.randn(len(row), generator=generator) * planted.spread[feature]
        size = (size + planted.strength[feature]).clamp(min=1e-3)  # what fires has some strength
        counts = torch.bincount(row, minlength=n)
        starts = counts.cumsum(0) - counts
        x = F.embedding_bag(feature, planted.directions, starts, mode="sum", per_sample_weights=size)
        if planted.world.noise:
            x = x + planted.world.noise * torch.randn(x.shape, generator=generator)
        widest = max(1, int(counts.max()))
        indices, values = torch.zeros((n, widest), dtype=torch.long), torch.zeros((n, widest))
        place = torch.arange(len(row)) - starts[row]
        indices[row, place], values[row, place] = feature, size
        return {SITE: x}, indices, values


def plant(world: World = World(), seed: Seed = Seed(0)) -> Planted:  # noqa: B008
    """Draw the features of a world."""
    root = seed.child("synthetic")
    drawn = root.child("directions").numpy().standard_normal((world.features, world.width))
    directions = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    share = np.arange(world.features) / max(world.features - 1, 1)
    asked = _power_law(world)
    parents, given, rates = _hierarchy(world, asked)
    low, high = world.strengths
    strength = low + (high - low) * share
    spread = np.abs(root.child("spread").numpy().normal(0.5, 0.5, world.features)) * strength / 5.0
    free = int(np.count_nonzero(parents < 0))
    factors = world.loading * root.child("factors").numpy().standard_normal((free, world.rank))
    length = np.sqrt(np.square(factors).sum(axis=1, keepdims=True))
    factors = factors * np.minimum(1.0, 0.95 / np.maximum(length, 1e-12))
    return Planted(
        world=world,
        seed=root,
        directions=torch.from_numpy(directions).float(),
        rates=rates,
        asked=asked,
        parents=parents,
        given=given,
        strength=torch.from_numpy(strength).float(),
        spread=torch.from_numpy(spread).float(),
        factors=factors,
    )


def _power_law(world: World) -> Float[np.ndarray, " features"]:
    """Rates by rank: an affine function of rank ** -exponent that meets both ends."""
    falls = np.arange(1, world.features + 1, dtype=float) ** -world.exponent
    reach = falls[0] - falls[-1]
    share = (falls - falls[-1]) / reach if reach > 0 else np.zeros_like(falls)
    return world.least + (world.most - world.least) * share


def _hierarchy(
    world: World, asked: Float[np.ndarray, " features"]
) -> tuple[Int[np.ndarray, " f"], Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Parents, the probability of firing given the parent, and the rates that follow."""
    parents = np.full(world.features, -1)
    given, rates, start, b = asked.copy(), asked.copy(), 0, world.branching
    for above, below in zip(world.levels[:-1], world.levels[1:], strict=True):
        old, new = slice(start, start + above), slice(start + above, start + above + below)
        parents[new] = np.repeat(np.arange(start, start + above), b)
        chance = asked[new].reshape(above, b) / rates[old][:, None]
        chance = np.minimum(chance, 1.0)
        if world.exclusive:  # one of those is picked that would have fired on their own, if any would
            some = np.minimum(1.0 - (1.0 - chance).prod(axis=1, keepdims=True), 1.0 - world.alone)
            chance = chance * some / chance.sum(axis=1, keepdims=True)
        given[new] = chance.ravel()
        rates[new] = given[new] * np.repeat(rates[old], b)
        start += above
    return parents, given, rates
