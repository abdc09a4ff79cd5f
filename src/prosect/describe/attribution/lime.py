"""LIME: a weighted linear fit to the model's answers when random sets of features are replaced.

Ribeiro, Singh & Guestrin 2016, "Why should I trust you?", section 3, with every feature in the fit. The fit
depends on which sets were drawn, so it is made several times and what changes is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.describe.attribution.coalitions import Game
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.ranks import spearman
from prosect.describe.attribution.reference import Reference


@dataclass(frozen=True)
class Lime:
    """Ridge regression of v(S) on membership of S.

    Attributes:
        samples: sets drawn for each fit; each feature is in a set with probability one half.
        width: of the kernel: a set that leaves out a share s of the features weighs exp(−s / width²).
        ridge: penalty on squared coefficients, in units of the total weight; the intercept is free.
        repeats: fits with sets of their own; their mean is the value.
    """

    samples: int = 256
    width: float = 0.75
    ridge: float = 1e-3
    repeats: int = 3
    name: str = "lime"
    gradient: bool = False
    several: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2 or self.repeats < 2:
            raise BadInput(
                f"{self.samples} samples, {self.repeats} repeats",
                "at least 2 of each: one fit cannot say how far another would differ",
            )
        if not (self.width > 0 and self.ridge >= 0):
            raise BadInput(f"width {self.width}, ridge {self.ridge}", "a width above 0, a ridge of 0 or more")

    @property
    def words(self) -> str:
        """What a value means."""
        return (
            "coefficient of the feature's presence in a local linear fit "
            f"({self.samples} sets, width {self.width:g}, ridge {self.ridge:g}, {self.repeats} fits); "
            "values need not add up to anything"
        )

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """``samples`` · ``repeats`` forward passes for each row and point of the reference."""
        fits = np.zeros((self.repeats, len(explicand), explicand.features.count))
        for row in range(len(explicand)):
            game = Game(explicand, reference, row)
            players = game.players.numpy()
            for repeat in range(self.repeats):
                sets = seed.child(row, repeat).numpy().random((self.samples, game.size)) < 0.5
                fits[repeat, row, players] = self.fit(sets, game.value(sets))
        present = explicand.present.numpy()
        pairs = [spearman(a, b, present) for a, b in combinations(fits, 2)]
        stability = np.mean(pairs, axis=0)
        errors = fits.std(axis=0, ddof=1) / np.sqrt(self.repeats)
        note = f"mean rank correlation between fits: {stability.mean():.2f}, least {stability.min():.2f}"
        return Scores(fits.mean(axis=0), errors=errors, stability=stability, notes=(note,))

    def fit(
        self, sets: Bool[np.ndarray, "n players"], values: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " players"]:
        """Coefficients of the weighted ridge regression of ``values`` on membership."""
        if sets.shape[1] == 0:
            return np.zeros(0)
        weight = np.exp(-(~sets).mean(axis=1) / self.width**2)
        weight /= weight.sum()
        z = sets - weight @ sets
        gram = np.einsum("ni,n,nj->ij", z, weight, z) + self.ridge * np.eye(z.shape[1])
        right = np.einsum("ni,n->i", z, weight * (values - weight @ values))
        return np.asarray(np.linalg.lstsq(gram, right, rcond=None)[0])
