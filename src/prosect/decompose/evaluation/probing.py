"""Does a dictionary have the concepts that are wanted? Probes on a few latents against probes on everything.

A concept that a dense probe reads from the activations and that no few latents carry is missing from the dictionary
(k-sparse probing: Gurnee et al. 2023, "Finding neurons in a haystack"). How many latents it takes tells whether it
was split into several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.logistic import best_threshold, logistic, marks

KS = (1, 2, 5, 16)
JUMP = 0.03
"""A latent more that raises F1 by more than this is another part of the concept (SAEBench)."""


@dataclass(frozen=True)
class SparseProbe:
    """One concept read from a few latents, and from everything.

    Attributes:
        latents: the most telling ones, best first: largest difference of mean codes with and without the concept.
        f1: for each k, of a probe on the first k of them, on odd rows.
        accuracy: likewise.
        dense: F1 of a probe on the activations.
        dense_accuracy: its accuracy.
        called: for each k, which odd rows the probe says the concept is at.
        dense_called: the same of the probe on the activations.
    """

    latents: Int[Tensor, " most"]
    f1: dict[int, float]
    accuracy: dict[int, float]
    dense: float
    dense_accuracy: float
    called: dict[int, Bool[Tensor, " odd"]]
    dense_called: Bool[Tensor, " odd"]

    def gap(self, k: int) -> float:
        """How much F1 is lost by reading k latents instead of everything."""
        return self.dense - self.f1[k]


def sparse_probe(
    codes: Codes,
    x: Float[Tensor, "n width"],
    y: Bool[Tensor, " _"],
    ks: Sequence[int] = KS,
    ridge: float = 1.0,
) -> SparseProbe:
    """Probe one concept; latents, weights and thresholds are chosen on even rows, scores are of odd ones.

    Args:
        codes: of the dictionary.
        x: the activations they are codes of.
        y: where the concept is present; in both halves somewhere, and somewhere not.
        ks: how many latents probes may read.
        ridge: penalty of the probes, on inputs scaled to unit variance.

    Raises:
        ShapeMismatch: codes, activations and labels differ in length.
        BadInput: one half has a single class, or k is not between 1 and the number of latents.
    """
    if not len(codes) == len(x) == len(y):
        raise ShapeMismatch(f"{len(codes)} codes, {len(x)} rows, {len(y)} labels", "as many of each")
    if not ks or min(ks) < 1 or max(ks) > codes.width:
        raise BadInput(f"probes on {tuple(ks)} of {codes.width} latents", f"1 to {codes.width}")
    for half in (y[::2], y[1::2]):
        if not bool(half.any()) or bool(half.all()):
            raise BadInput("a concept that is everywhere or nowhere in one half", "one that comes and goes")
    ranked = telling(Codes(codes.indices[::2], codes.values[::2], codes.width), y[::2])[: max(ks)]
    columns = codes.columns(ranked.tolist())
    f1, accuracy, called = {}, {}, {}
    for k in ks:
        f1[k], accuracy[k], called[k] = _probe(columns[:, :k], y, ridge)
    dense, dense_accuracy, dense_called = _probe(x, y, ridge)
    return SparseProbe(ranked, f1, accuracy, dense, dense_accuracy, called, dense_called)


def telling(codes: Codes, y: Bool[Tensor, " n"]) -> Int[Tensor, " latents"]:
    """Latents by how far their mean code differs between rows with and without the concept, largest first."""
    means = []
    for rows in (y, ~y):
        totals = torch.zeros(codes.width, dtype=torch.float64)
        at, values = codes.indices[rows].flatten().cpu(), codes.values[rows].flatten().cpu().double()
        means.append(totals.index_add_(0, at, values) / max(int(rows.sum()), 1))
    return (means[0] - means[1]).abs().argsort(descending=True, stable=True)


def parts_of(f1: dict[int, float], jump: float = JUMP) -> int:
    """How many latents a concept is split into: the most for which each one more raised F1 by over ``jump``.

    Args:
        f1: for k = 1, 2, 3 ... without a gap, as `sparse_probe` gives it.
        jump: what counts as a rise.

    Raises:
        BadInput: it does not begin at 1 or has a gap.
    """
    if sorted(f1) != list(range(1, len(f1) + 1)):
        raise BadInput(f"F1 for k = {sorted(f1)}", "1, 2, 3 ... without a gap")
    k = 1
    while k + 1 in f1 and f1[k + 1] - f1[k] > jump:
        k += 1
    return k


def _probe(x: Tensor, y: Tensor, ridge: float) -> tuple[float, float, Tensor]:
    """F1, accuracy and answers on odd rows of a probe fitted on even ones."""
    x = x.double()
    x = (x - x[::2].mean(dim=0)) / x[::2].std(dim=0).clamp(min=1e-12)
    weights, intercept = logistic(x[::2], y[::2], ridge)
    scores = x @ weights + intercept
    called = scores[1::2] > best_threshold(scores[::2], y[::2])
    right = ((scores[1::2] > 0) == y[1::2]).double().mean()
    return marks(called, y[1::2])[2], float(right), called
