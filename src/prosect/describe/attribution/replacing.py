"""The exact effect of replacing features: what every estimate of it is held against."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.reference import Reference

POINTS = 2**22


def without(
    explicand: Explicand,
    reference: Reference,
    rows: Int[np.ndarray, " n"],
    replaced: Bool[np.ndarray, "n features"],
) -> Float[np.ndarray, " n"]:
    """f of ``rows[i]`` with the features ``replaced[i]`` taken from the reference, averaged over its points.

    Padding is never replaced.
    """
    m = reference.size
    out = np.empty(len(rows))
    most = max(1, POINTS // (m * max(1, explicand.x[0].numel())))
    for start in range(0, len(rows), most):
        at = rows[start : start + most]
        index = torch.from_numpy(np.repeat(at, m))
        keep = ~torch.from_numpy(np.repeat(replaced[start : start + most], m, axis=0))
        keep |= ~explicand.present[index]
        outside = torch.cat([reference.of(int(row)) for row in at])
        points = explicand.mix(keep, explicand.x[index.to(explicand.device)], outside)
        out[start : start + most] = explicand.at(points, index).reshape(len(at), m).mean(dim=1).numpy()
    return out


def one_by_one(
    explicand: Explicand, reference: Reference, rows: Int[np.ndarray, " n"], features: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """f(x) − f(x with one feature replaced), for pairs of a row and a feature."""
    chosen = np.zeros((len(rows), explicand.features.count), dtype=bool)
    chosen[np.arange(len(rows)), features] = True
    here = explicand.itself().numpy()
    return np.asarray(here[rows] - without(explicand, reference, rows, chosen))
