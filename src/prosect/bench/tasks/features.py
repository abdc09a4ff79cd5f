"""Feature recovery: from activations at one site to the directions that make them.

Methods are handed activations alone, since a network's weights may hold its features outright. They are told how many
features there are and how many are active at once, and may give back no more directions than there are features: more
would cover the sphere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.subject import Subject
from prosect.bench.task import Case, Metric, Setup, array, expect
from prosect.core.errors import ShapeMismatch
from prosect.core.truth import FeatureDirections, Truth
from prosect.decompose.definitions import DIRECTION

FOUND = 0.9
"""A direction stands for a feature if their cosine is at least this."""
RANGE = (1e-3, 0.99)
"""Features that are active more rarely or more often than this cannot be told from nothing."""


@dataclass(frozen=True)
class FeatureRecovery:
    """The task ``features``.

    Handed: ``activations`` (n, width); ``about``: ``site``, ``count`` of features, ``active`` at once on average.
    Given back: ``directions`` (m, width) with m of at most ``count``; lengths do not matter, signs do.
    """

    name: str = "features"
    methods: str = "features"
    version: int = 1
    metrics: tuple[Metric, ...] = (
        Metric(
            "max cosine",
            "mean over features of the largest cosine with any direction given",
            -1.0,
            feature=DIRECTION.name,
        ),
        Metric(
            "real",
            "mean over directions of the largest cosine with any feature",
            -1.0,
            feature=DIRECTION.name,
        ),
        Metric(
            "MCC",
            "mean cosine of the best one-to-one matching, missing directions as 0",
            -1.0,
            feature=DIRECTION.name,
        ),
        Metric(
            "F1", f"of directions matched one-to-one at a cosine of {FOUND:g} or more", feature=DIRECTION.name
        ),
    )

    def suits(self, truth: Truth) -> bool:
        """Whether it has directions."""
        return bool(truth.features)

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One, at the last site whose directions are known."""
        known = subject.truth.features[-1]
        directions, frequency = _usable(known)
        if not len(directions):
            return ()
        x = subject.activations(known.site, "explore", setup.rows)
        if tuple(x.shape[1:]) != directions.shape[1:]:
            raise ShapeMismatch(
                f"activations of shape {tuple(x.shape)}", f"(positions, {directions.shape[1]})"
            )
        given = Given(
            {"activations": x},
            {"site": known.site, "count": len(directions), "active": float(frequency.sum())},
            seconds=setup.seconds,
        )
        return (Case("", given, {"directions": directions}),)

    def check(self, given: Given, answer: Answer) -> None:
        """Finite directions of the right width, no more than there are features."""
        expect(answer, {"directions": (None, given.tensors["activations"].shape[1])})
        n = len(answer["directions"])
        if not 1 <= n <= given.about["count"]:
            raise ShapeMismatch(f"{n} directions", f"1 to {given.about['count']}, the number of features")

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """Cosines of what was found with what is there."""
        from scipy.optimize import linear_sum_assignment

        truth, said = case.truth["directions"], array(answer["directions"])
        cosines = _unit(truth) @ _unit(said).T
        rows, columns = linear_sum_assignment(cosines, maximize=True)
        matched = cosines[rows, columns]
        hits = int((matched >= FOUND).sum())
        return {
            "max cosine": float(cosines.max(axis=1).mean()),
            "real": float(cosines.max(axis=0).mean()),
            "MCC": float(matched.sum() / len(truth)),
            "F1": 2.0 * hits / (len(truth) + len(said)),
        }

    def oracle(self, case: Case) -> Answer:
        """The directions themselves."""
        return {"directions": torch.from_numpy(case.truth["directions"])}

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """As many directions as there are features, uniform on the sphere."""
        shape = (given.about["count"], given.tensors["activations"].shape[1])
        return {"directions": torch.randn(shape, generator=rng, dtype=torch.float64)}

    def floor(self, case: Case) -> float:
        """`largest_cosine` of as many directions as there are features."""
        n, width = case.truth["directions"].shape
        return largest_cosine(n, width)


def largest_cosine(n: int, width: int) -> float:
    """Mean of the largest cosine of ``n`` uniformly random directions with a fixed one.

    (1 + cosine) / 2 follows Beta((width − 1)/2, (width − 1)/2), and the largest of n has its distribution function to
    the power n; the mean is integrated by Gauss-Legendre.
    """
    from scipy.special import betainc

    if width == 1:
        return 1.0 - 2.0 * 0.5**n
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = (nodes + 1.0) * np.pi / 2.0  # in the angle the integrand is smooth at both ends
    half = (width - 1) / 2.0
    below = betainc(half, half, (1.0 - np.cos(angle)) / 2.0) ** n
    return float(1.0 - np.sum(weights * np.pi / 2.0 * np.sin(angle) * below))


def _usable(known: FeatureDirections) -> tuple[Float[np.ndarray, "features width"], np.ndarray]:
    kept = (known.frequency > RANGE[0]) & (known.frequency < RANGE[1])
    return np.asarray(known.directions[kept], dtype=float), np.asarray(known.frequency[kept])


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def activations(given: Given) -> Tensor:
    """What methods of this task are handed."""
    return given.tensors["activations"]
