"""The QK fix: what patching a query or a key does to attention, by the softmax itself instead of its slope.

Where attention is saturated its slope is about zero, and a gradient says that queries and keys do not matter.
The fix computes the new probabilities exactly and takes the slope from there on: (p' - p) · dL/dp
(Kramár et al. 2024, "AtP*", section 3.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.data.batch import Batch
from prosect.model.edits import patch

if TYPE_CHECKING:
    from prosect.model.model import Model

SINK = 1e-5
"""Weight beyond the keys that is more than rounding."""


def patched_patterns(
    model: Model, batch: Batch, values: dict[str, Tensor], layers: Sequence[int], kind: str
) -> dict[int, Tensor]:
    """Of every layer, what attention is when all its queries, or all its keys, are another run's.

    One pass serves all layers: the other factor is held at what it was, so that nothing is passed on.

    Args:
        values: ``q.L`` and ``k.L`` of this run under their names, and of the other under ``other q.L``.
        kind: ``q`` gives probabilities, ``k`` gives scores.
    """
    held = "k" if kind == "q" else "q"
    edits = [patch(f"{kind}.{i}", values[f"other {kind}.{i}"]) for i in layers]
    edits += [patch(f"{held}.{i}", values[f"{held}.{i}"]) for i in layers]
    site = "probs" if kind == "q" else "scores"
    trace = model.run(batch, [f"{site}.{i}" for i in layers], edits, finite=False)
    return {i: trace[f"{site}.{i}"] for i in layers}


def of_queries(
    probs: Float[Tensor, "rows heads queries keys"],
    patched: Float[Tensor, "rows heads queries keys"],
    slope: Float[Tensor, "rows heads queries keys"],
) -> Float[Tensor, "rows queries heads"]:
    """Effect of each query: it changes its own row of attention and nothing else."""
    return ((patched - probs).double() * slope.double()).sum(dim=-1).transpose(1, 2)


def of_keys(
    scores: Float[Tensor, "rows heads queries keys"],
    patched: Float[Tensor, "rows heads queries keys"],
    probs: Float[Tensor, "rows heads queries keys"],
    slope: Float[Tensor, "rows heads queries keys"],
    at: Sequence[Sequence[int]],
    groups: int = 1,
) -> Float[Tensor, "rows keyheads"]:
    """Effect of patching a set of keys of each row together: their scores change for every query.

    The softmax is made again in float64 with the new scores, so that a probability too small to be written
    comes back. Whatever else takes weight, such as a sink, is read off what the probabilities leave.

    Args:
        at: positions of the keys, for each row.
        groups: query heads that share a key head.
    """
    rows, heads, _, keys = probs.shape
    there = torch.zeros(rows, 1, 1, keys, dtype=torch.bool, device=probs.device)
    for row, positions in enumerate(at):
        there[row, ..., list(positions)] = True
    before = _softmax(scores.double(), scores.double(), probs.double())
    after = _softmax(torch.where(there, patched, scores).double(), scores.double(), probs.double())
    effect = ((after - before) * slope.double()).sum(dim=(-1, -2))
    return effect.reshape(rows, heads // groups, groups).sum(dim=-1)


def _softmax(x: Tensor, scores: Tensor, probs: Tensor) -> Tensor:
    """Of ``x``, beside whatever took weight from ``scores`` when they gave ``probs``."""
    best, arg = scores.max(dim=-1, keepdim=True)
    total = best - probs.gather(-1, arg).clamp(min=1e-300).log()
    share = torch.exp(scores.logsumexp(dim=-1, keepdim=True) - total)
    hidden = torch.where(share < 1 - SINK, total + torch.log1p(-share.clamp(max=1 - SINK)), -torch.inf)
    return torch.cat([x, hidden], dim=-1).softmax(dim=-1)[..., :-1]
