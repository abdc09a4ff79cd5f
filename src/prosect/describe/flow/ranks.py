"""How alike two accounts of a head's sources are: the correlation of their ranks, with rounding tied."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

ALIKE = 1e-6
"""Sources within this share of a destination's strongest count as equal; float32 tells no more apart."""


def ranks(x: Float[np.ndarray, " sources"]) -> Float[np.ndarray, " sources"]:
    """Ranks around 0, in [-.5, .5]; what is alike to rounding is tied."""
    top = float(x.max(initial=0.0))
    level = np.round(x / (top * ALIKE)) if top > 0 else np.zeros_like(x)
    found = rankdata(level)
    return np.asarray((found - found.mean()) / len(found))


def correlation(a: Float[np.ndarray, " sources"], b: Float[np.ndarray, " sources"]) -> float:
    """Spearman's, of what `ranks` gave; 0 where one of them ties everything."""
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
