"""How directions share the dimensions they have: coherence, interference, features per dimension.

Sources: Welch 1974, "Lower bounds on the maximum cross correlation of signals"; Elhage et al. 2022, "Toy models of
superposition", for what each feature has of a dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput

ROWS = 2048
"""Rows of the matrix of cosines held at once."""


def coherence(directions: Float[Tensor, "n width"]) -> float:
    """The largest magnitude of a cosine between two different directions, from 0 to 1; no lower than `welch_bound`.

    Raises:
        BadInput: fewer than two directions, or one of length zero.
    """
    unit = _unit(directions)
    if len(unit) < 2:
        raise BadInput(f"{len(unit)} direction", "at least two")
    most = 0.0
    for start, cosines in _cosines(unit):
        cosines[torch.arange(len(cosines)), start + torch.arange(len(cosines))] = 0.0
        most = max(most, float(cosines.abs().max()))
    return most


def welch_bound(n: int, width: int) -> float:
    """The least coherence that n directions in ``width`` dimensions can have; equiangular tight frames reach it.

    sqrt((n - width) / (width (n - 1))), and 0 where they fit at right angles.

    Raises:
        BadInput: no direction or no dimension.
    """
    if n < 1 or width < 1:
        raise BadInput(f"{n} directions in {width} dimensions", "at least 1 of each")
    return math.sqrt(max(n - width, 0) / (width * max(n - 1, 1)))


def interference(directions: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
    """For each direction, the sum of squared cosines with all others: 0 where it has its dimensions to itself.

    Its mean is at least n / width - 1, which tight frames reach.
    """
    unit = _unit(directions)
    return torch.cat([cosines.square().sum(dim=1) for _, cosines in _cosines(unit)]) - 1.0


def dimensionality(weights: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
    """The share of a dimension that each feature has: ‖w_i‖² / Σ_j (ŵ_i · w_j)².

    1 for a feature on its own, 1/2 in an antipodal pair, 2/5 in a pentagon, 0 for a row of zeros. Lengths count: a
    feature that is hardly represented takes hardly any room.
    """
    w = weights.detach().to("cpu", torch.float64)
    norms = w.norm(dim=1)
    unit = w / norms.clamp(min=1e-300)[:, None]
    shared = torch.cat([(rows @ w.T).square().sum(dim=1) for rows in torch.split(unit, ROWS)])
    return torch.where(norms > 0, norms.square() / shared.clamp(min=1e-300), 0.0)


def features_per_dimension(weights: Float[Tensor, "n width"]) -> float:
    """‖W‖² / width, the number of features per dimension where every represented one has length 1.

    Elhage et al. 2022, section on features per dimension; above 1 there is superposition.
    """
    w = weights.detach().double()
    return float(w.square().sum()) / w.shape[1]


def _unit(directions: Tensor) -> Tensor:
    x = directions.detach().to("cpu", torch.float64)
    norms = x.norm(dim=1, keepdim=True)
    if not len(x) or not bool((norms > 0).all()):
        raise BadInput("a direction of length zero, or none", "directions with a length")
    unit: Tensor = x / norms
    return unit


def _cosines(unit: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Rows of the matrix of cosines, with the number of the first."""
    for start in range(0, len(unit), ROWS):
        yield start, unit[start : start + ROWS] @ unit.T
