"""The value of a coalition: what the model gives when only some features are known."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.reference import Reference

POINTS = 2**22
"""Numbers of mixed inputs made at once, at most."""
WORDS = (
    "v(S) is the mean of f over the reference with the features in S taken from the row (interventional: the others "
    "are drawn without regard to S, so a feature that f does not read gets nothing)"
)


class Game:
    """One row's features as players.

    Padding does not play: it stays as it is.

    Args:
        explicand: what is explained.
        reference: what absent features are replaced by.
        row: which row.
    """

    def __init__(self, explicand: Explicand, reference: Reference, row: int) -> None:
        self.explicand, self.row = explicand, row
        self.players = explicand.present[row].nonzero().flatten()
        self._outside = reference.of(row)

    @property
    def size(self) -> int:
        """How many players there are."""
        return len(self.players)

    def value(self, coalitions: Bool[np.ndarray, "n players"]) -> Float[np.ndarray, " n"]:
        """v of each coalition."""
        m = len(self._outside)
        x = self.explicand.x[self.row]
        keep = torch.ones(len(coalitions), self.explicand.features.count, dtype=torch.bool)
        keep[:, self.players] = torch.from_numpy(np.ascontiguousarray(coalitions))
        out = np.empty(len(coalitions))
        most = max(1, POINTS // (m * max(1, x.numel())))
        for start in range(0, len(coalitions), most):
            part = keep[start : start + most]
            points = self.explicand.mix(
                part.repeat_interleave(m, dim=0),
                x.expand(len(part) * m, *x.shape),
                self._outside.repeat(len(part), *[1] * x.ndim),
            )
            got = self.explicand.at(points, torch.full((len(points),), self.row))
            out[start : start + most] = got.reshape(len(part), m).mean(dim=1).numpy()
        return out
