"""A direction in the stream that goes with a token: a difference of means, a probe's, or what a latent writes.

All three are given the length of the difference of means, so that a dose of one is a dose of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed

Vector = Literal["means", "probe", "latent"]
FEWEST = 20
"""Positions before the token that a direction needs."""
MOST = 20_000
"""Positions elsewhere that a probe is fitted on, drawn at random as they pass."""


@dataclass
class Before:
    """The stream where a token comes next, and elsewhere, gathered over batches.

    Args:
        seed: of the positions elsewhere that are kept.
    """

    seed: Seed
    totals: list[Float[Tensor, " width"]] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0, 0])
    _there: list[Float[np.ndarray, "n width"]] = field(default_factory=list)
    _elsewhere: list[Float[np.ndarray, "n width"]] = field(default_factory=list)
    _batches: int = 0

    def add(
        self,
        x: Float[Tensor, "rows positions width"],
        there: Bool[Tensor, "rows positions"],
        elsewhere: Bool[Tensor, "rows positions"],
    ) -> None:
        """Take a batch into account; positions in neither are left out."""
        if not self.totals:
            self.totals = [x.new_zeros(x.shape[-1], dtype=torch.float64) for _ in range(2)]
        for side, here in enumerate((there, elsewhere)):
            self.totals[side] += x[here].double().sum(dim=0)
            self.counts[side] += int(here.sum())
        self._there.append(x[there].float().cpu().numpy())
        some = x[elsewhere].float().cpu().numpy()
        draw = self.seed.child("elsewhere", self._batches).numpy().permutation(len(some))
        self._elsewhere.append(some[draw[: max(64, MOST // 40)]])
        self._batches += 1

    def check(self, token: str) -> None:
        """Refuse a token that is too rare here.

        Raises:
            TooLittleData: fewer than `FEWEST` positions of either kind.
        """
        if min(self.counts) < FEWEST:
            raise TooLittleData(
                f"{self.counts[0]} places of explored text that the token {token!r} follows",
                f"{FEWEST} or more",
                "a token that is used more often, or more text",
            )

    def means(self) -> Float[Tensor, " width"]:
        """Mean where the token comes next minus mean elsewhere."""
        there, elsewhere = (t / max(n, 1) for t, n in zip(self.totals, self.counts, strict=True))
        return (there - elsewhere).float()

    def probe(self) -> Float[Tensor, " width"]:
        """The normal of a logistic regression that tells the two apart, as long as the difference of means.

        Features are standardised, both classes weigh alike, and the penalty is the one of five that five-fold
        cross-validation prefers.
        """
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.model_selection import StratifiedKFold

        x = np.concatenate([*self._there, *self._elsewhere]).astype(np.float64)
        y = np.zeros(len(x), dtype=int)
        y[: sum(map(len, self._there))] = 1
        scale = np.maximum(x.std(axis=0), 1e-12)
        folds = StratifiedKFold(5, shuffle=True, random_state=self.seed.child("folds").integer % 2**32)
        fitted = LogisticRegressionCV(
            Cs=np.logspace(-4, 0, 5),
            cv=folds,
            class_weight="balanced",
            max_iter=500,
            l1_ratios=(0.0,),
            scoring="roc_auc",
            use_legacy_attributes=False,
        ).fit((x - x.mean(axis=0)) / scale, y)
        normal = torch.from_numpy(np.asarray(fitted.coef_)[0] / scale)
        return as_long_as(normal.to(self.totals[0]), self.means())


def as_long_as(direction: Float[Tensor, " width"], other: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """``direction`` with the length of ``other``."""
    made: Tensor = (direction.double() * (other.double().norm() / direction.double().norm())).to(other)
    return made
