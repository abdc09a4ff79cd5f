"""After training: one threshold such that as many latents fire as should, and how many then do.

The threshold comes from one half of a sample and L0 is measured on the other, so what is recorded is not what
was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import TooLittleData
from prosect.decompose.dictionary import Weights
from prosect.decompose.objective import Objective
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.ranks.firing import firing
from prosect.decompose.ranks.pursuing import pursued

CHUNK = 2**22
"""Pre-activations held at once."""


def threshold_for(
    parts: Callable[[], Iterator[Float[Tensor, "_ latents"]]],
    positions: int,
    l0: float,
    ranks: Ranks = ALONE,
) -> float:
    """The one threshold above which ``l0`` · ``positions`` pre-activations lie, rounded down.

    It lies midway between the last that fires and the first that does not, so that rounding moves none
    across; 0 where fewer are positive.

    Args:
        parts: gives the pre-activations of all positions, in parts.
        positions: how many there are.
        l0: latents that should fire at a position.
        ranks: what latents are dealt to.
    """
    count = int(l0 * positions)
    best, floor = torch.zeros(0), 0.0
    for pre in parts():
        found = pre[pre > floor]
        best = torch.cat([best.to(found), found])
        if len(best) > 2 * (count + 1):
            best = best.topk(count + 1).values
            floor = float(best.min())
    best = ranks.leading(best, count + 1)
    if len(best) <= count:
        return 0.0
    last = best.topk(count + 1).values[-2:].double() if count else best.max().double().repeat(2)
    return float(last.mean())


def calibrated(
    weights: Weights, objective: Objective, x: Float[Tensor, "n reads"], ranks: Ranks = ALONE
) -> tuple[Weights, dict[str, Json]]:
    """The weights with their threshold found, where it is still to be found, and what is known of L0.

    Args:
        weights: after training.
        objective: of the training.
        x: activations at the sites read, side by side.
        ranks: what latents are dealt to; the weights are then of those that are here.

    Returns:
        The weights, and ``l0`` (measured), ``target_l0``, ``threshold`` (None where it was learned or there
        is none) and ``positions`` (that L0 was measured on).

    Raises:
        TooLittleData: fewer than two positions.
    """
    if len(x) < 2:
        raise TooLittleData(f"{len(x)} position to calibrate a dictionary on", "at least 2")
    deciding, judging = x[: len(x) // 2], x[len(x) // 2 :]

    def parts(rows: Tensor) -> Iterator[Tensor]:
        for some in torch.split(rows, max(1, CHUNK // len(weights.bias))):
            yield torch.addmm(weights.bias, some - weights.centre, weights.encoder.T)

    threshold: float | None = None
    if objective.calibrated and objective.target is not None:
        threshold = threshold_for(lambda: parts(deciding), len(deciding), objective.target, ranks)
        weights = replace(weights, threshold=torch.full_like(weights.bias, threshold))
    if isinstance(objective.after, Pursuit):
        left = torch.split(judging - weights.offset, max(1, CHUNK // len(weights.bias)))
        codes = (pursued(objective.after, rows, weights.decoder, ranks) for rows in left)
        fired = float(sum((found.dense() > 0).sum() for found in codes))
    else:
        fired = sum(_fired(objective, pre, weights.threshold, ranks) for pre in parts(judging))
    return weights, {
        "l0": fired / len(judging),
        "target_l0": objective.target,
        "threshold": threshold,
        "positions": len(judging),
    }


def _fired(
    objective: Objective, pre: Float[Tensor, "n here"], threshold: Float[Tensor, " here"] | None, ranks: Ranks
) -> float:
    """How many fire, of the latents of all ranks."""
    if ranks is ALONE:
        return float(objective.codes(pre, threshold).active.sum())
    here = len(firing(objective.after, pre, threshold, ranks)[1])
    return float(ranks.total(torch.tensor(here, dtype=torch.float64)))
