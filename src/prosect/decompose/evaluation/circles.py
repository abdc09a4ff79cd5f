"""Features that are no directions: planes in which points lie on a circle that no two directions explain.

After Engels et al. 2024, "Not all language model features are one-dimensionally linear": a plane is reducible if its
points are a product of two independent coordinates under some rotation (separability), or a mixture of points that
hardly vary along some direction (mixture). A circle is neither. Gaussian points are the control: independent under
every rotation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.definitions import SUBSPACE, Definition

ANGLES = 24
FINE = 8
LEAST = 100
NEAR = 0.1
"""A point hardly varies along a direction if it is this many standard deviations from a line across it."""


@dataclass(frozen=True)
class Plane:
    """One pair of principal components.

    Attributes:
        components: their numbers.
        dependence: information, in nats, that one coordinate has about the other under the rotation where it has
            least (separability index): 0 for two independent features.
        mixture: largest share of points within `NEAR` standard deviations of one line (ε-mixture index): about
            .08 for Gaussian points, .16 for a circle, 2/7 for the seven days on one, and at least .5 for two
            features that exclude each other.
        radius: standard deviation of the distance from the centre over its mean: .52 for Gaussian points, 0 for
            a circle.
        p: of independence under that rotation, by permuting one coordinate, corrected for the number of planes.
            Conservative: where some rotation makes them independent, the least dependent one is no worse.
    """

    components: tuple[int, int]
    dependence: float
    mixture: float
    radius: float
    p: float

    @property
    def definition(self) -> Definition:
        """What counts as a feature: a subspace, here of two dimensions."""
        return SUBSPACE

    @property
    def circular(self) -> bool:
        """Dependent under every rotation (p at most .05), no mixture, and of more even radius than Gaussian points."""
        return self.p <= 0.05 and self.mixture < MIXTURE and self.radius < GAUSSIAN_RADIUS


MIXTURE = 0.45
"""Half of the points, less what noise takes off the line."""
GAUSSIAN_RADIUS = math.sqrt(4 / math.pi - 1)
"""Of a Rayleigh distribution."""


def circles(
    x: Float[Tensor, "n width"], seed: Seed, components: int = 4, draws: int = 99
) -> tuple[Plane, ...]:
    """Look at every pair of the first principal components of some points for a circle.

    Args:
        x: points, such as what a cluster of latents writes, or the means of classes.
        seed: of the permutations.
        components: how many principal components to pair.
        draws: permutations; p is at least 1 / (draws + 1) times the number of pairs.

    Returns:
        The planes, most dependent first.

    Raises:
        TooLittleData: fewer than `LEAST` points.
        BadInput: fewer than two components vary, or p could never reach .05.
    """
    points = x.detach().cpu().double().numpy()
    if len(points) < LEAST:
        raise TooLittleData(f"{len(points)} points", f"at least {LEAST}")
    centred = points - points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    kept = min(components, int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum()))
    pairs = list(combinations(range(kept), 2))
    if not pairs:
        raise BadInput(f"points that vary in {kept} dimensions", "at least 2")
    if len(pairs) / (draws + 1) > 0.05:
        raise BadInput(f"{draws} draws for {len(pairs)} planes", f"at least {20 * len(pairs) - 1}")
    white = centred @ axes[:kept].T / sizes[:kept] * math.sqrt(len(points))
    found = []
    for a, b in pairs:
        plane = white[:, [a, b]]
        depends, angle = dependence(plane)
        rng = seed.child(a, b).numpy()
        turned, bins = plane @ _turn(angle), _bins(len(plane))
        u, v = (_ranked(column, bins) for column in turned.T)
        null = [_information(u, rng.permutation(v), bins) for _ in range(draws)]
        reached = sum(one >= _information(u, v, bins) - 1e-12 for one in null)
        distance = np.linalg.norm(plane, axis=1)
        p = min(1.0, len(pairs) * (1 + reached) / (draws + 1))
        found.append(Plane((a, b), depends, mixture(plane), float(distance.std() / distance.mean()), p))
    return tuple(sorted(found, key=lambda plane: -plane.dependence))


def dependence(plane: Float[np.ndarray, "n 2"]) -> tuple[float, float]:
    """Mutual information of two coordinates, in nats, least over rotations by up to a quarter turn; and that rotation.

    From counts in bins that hold equally many points, less what independent coordinates would have by chance
    ((bins - 1)² / 2n); at least 0.
    """
    bins = _bins(len(plane))
    quarter = math.pi / 2

    def at(angle: float) -> float:
        u, v = (plane @ _turn(angle)).T
        return _information(_ranked(u, bins), _ranked(v, bins), bins)

    coarse = min((i * quarter / ANGLES for i in range(ANGLES)), key=at)
    best = min((coarse + i * quarter / ANGLES / FINE for i in range(-FINE, FINE + 1)), key=at)
    return max(0.0, at(best) - (bins - 1) ** 2 / (2 * len(plane))), best


def _bins(n: int) -> int:
    return int(max(3, min(12, (n / 5) ** 0.5)))


def _turn(angle: float) -> Float[np.ndarray, "2 2"]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def mixture(plane: Float[np.ndarray, "n 2"]) -> float:
    """The largest share of points within `NEAR` standard deviations of one line, over directions and offsets."""
    most = 0.0
    for angle in np.arange(2 * ANGLES) * (math.pi / 2 / ANGLES):
        along = np.sort(plane @ np.array([math.cos(angle), math.sin(angle)]))
        reach = 2 * NEAR * along.std()
        ends = np.searchsorted(along, along + reach, side="right")
        most = max(most, float((ends - np.arange(len(along))).max()) / len(along))
    return most


def _ranked(values: Float[np.ndarray, " n"], bins: int) -> np.ndarray:
    """Bins of equal numbers of points; equal values share the bin of the first of them."""
    ordered = np.sort(values)
    edges = ordered[(np.arange(1, bins) * len(values)) // bins]
    return np.searchsorted(edges, values, side="right")


def _information(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / len(a)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())
