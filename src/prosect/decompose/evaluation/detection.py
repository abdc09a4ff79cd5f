"""Does a component fire exactly when a known feature does? Precision, recall and F1 of the best one for each.

Directions may match while codes do not: a latent can point the right way and fire at the wrong places. The best
component of a feature is chosen on even rows and scored on odd ones, because the largest of thousands of scores
is otherwise too good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import TooLittleData, Unsupported
from prosect.decompose.contract import ActivationStream, Codes, Decomposition
from prosect.decompose.definitions import LATENT, Definition


@runtime_checkable
class LabelledStream(ActivationStream, Protocol):
    """Activations of which it is known what made them.

    Attributes:
        features: how many features there are.
    """

    @property
    def features(self) -> int: ...

    def labelled(
        self,
    ) -> Iterator[tuple[dict[str, Float[Tensor, "n _"]], Int[Tensor, "n k"], Float[Tensor, "n k"]]]:
        """Blocks with the features present in each row and their strengths; a strength of 0 is no feature."""


BUDGET = 2**31
"""Bytes for the counts of two halves, 4 for each feature and component."""


@dataclass(frozen=True)
class Overlap:
    """How often features and components are present, alone and together.

    Attributes:
        positions: rows counted.
        together: rows at which both are present.
        features: rows at which each feature is.
        components: rows at which each component is.
    """

    positions: int
    together: Float[Tensor, "features components"]
    features: Float[Tensor, " features"]
    components: Float[Tensor, " components"]

    @property
    def f1(self) -> Float[Tensor, "features components"]:
        """Harmonic mean of precision and recall, 0 where neither is ever present."""
        total = self.features[:, None] + self.components[None]
        return 2.0 * self.together / total.clamp(min=1.0)


@dataclass(frozen=True)
class Detection:
    """The best component for each feature, and how well it tells where the feature is.

    Attributes:
        component: chosen by F1 on even rows.
        precision: on odd rows, the share of its firings at which the feature is present; 0 if it never fires.
        recall: on odd rows, the share of the feature's presences at which it fires.
        f1: their harmonic mean.
        seen: whether the feature is present in both halves at all; where it is not, the numbers say nothing.
    """

    component: Int[Tensor, " features"]
    precision: Float[Tensor, " features"]
    recall: Float[Tensor, " features"]
    f1: Float[Tensor, " features"]
    seen: Tensor

    @property
    def definition(self) -> Definition:
        """What counted as a feature: where it is present, and not along which direction."""
        return LATENT

    def mean(self, of: str = "f1") -> float:
        """Mean of ``f1``, ``precision`` or ``recall`` over the features that were seen."""
        return float(getattr(self, of)[self.seen].double().mean())

    def covered(self, at_least: float = 0.8) -> float:
        """Share of features with a component of at least this F1 (concept recall)."""
        return float((self.f1[self.seen] >= at_least).double().mean())


def detect(decomposition: Decomposition, stream: LabelledStream, budget: int = BUDGET) -> Detection:
    """Choose the best component for every feature on even rows and score it on odd ones.

    Args:
        decomposition: fitted; signed ones are present nearly everywhere, see
            `prosect.decompose.evaluation.baselines.KeepLargest`.
        stream: held-out activations with their features.
        budget: bytes for counts.

    Raises:
        TooLittleData: no feature is present in both halves.
        Unsupported: the counts would exceed the budget.
    """
    even, odd = overlaps(decomposition, stream, budget)
    return best(even, odd)


def best(choose: Overlap, score: Overlap) -> Detection:
    """`detect` on counts: choose the component on one set of rows and score it on another."""
    seen = (choose.features > 0) & (score.features > 0)
    if not bool(seen.any()):
        raise TooLittleData(
            f"no feature in both halves of {choose.positions + score.positions:,} rows",
            "some feature present in each",
            "more rows",
        )
    component = choose.f1.argmax(dim=1)
    row = torch.arange(len(component))
    together = score.together[row, component]
    fired = score.components[component]
    return Detection(
        component=component,
        precision=together / fired.clamp(min=1.0),
        recall=together / score.features.clamp(min=1.0),
        f1=2.0 * together / (fired + score.features).clamp(min=1.0),
        seen=seen,
    )


def overlaps(
    decomposition: Decomposition, stream: LabelledStream, budget: int = BUDGET
) -> tuple[Overlap, Overlap]:
    """Count what is present together, on even and on odd rows of a stream.

    Raises:
        Unsupported: the counts would exceed the budget.
    """
    features, components = stream.features, decomposition.n_components
    if 8 * features * components > budget:
        raise Unsupported(
            f"counts of {features:,} features with {components:,} components "
            f"({8 * features * components / 2**20:,.0f} MiB)",
            f"at most {budget / 2**20:,.0f} MiB",
            "a larger budget",
        )
    halves = [_Counts(features, components) for _ in range(2)]
    start = 0
    for block, indices, strengths in stream.labelled():
        codes = decomposition.encode(block)
        present = Codes(indices, strengths, features)
        for parity, counts in enumerate(halves):
            rows = slice((parity - start) % 2, None, 2)
            counts.add(present, codes, rows)
        start += len(indices)
    even, odd = (counts.overlap() for counts in halves)
    return even, odd


class _Counts:
    """Counts of one half, whole numbers until the end."""

    def __init__(self, features: int, components: int) -> None:
        self.shape, self.n = (features, components), 0
        self.together = torch.zeros(features * components, dtype=torch.int32)
        self.features = torch.zeros(features, dtype=torch.int64)
        self.components = torch.zeros(components, dtype=torch.int64)

    def add(self, present: Codes, codes: Codes, rows: slice) -> None:
        f, there = present.indices[rows], present.values[rows] != 0
        c, fires = codes.indices[rows].cpu(), (codes.values[rows] != 0).cpu()
        self.n += len(f)
        self.features += torch.bincount(f[there], minlength=self.shape[0])
        self.components += torch.bincount(c[fires], minlength=self.shape[1])
        for part in torch.split(torch.arange(len(f)), max(1, 2**22 // max(1, f.shape[1] * c.shape[1]))):
            pair = (f[part][:, :, None] * self.shape[1] + c[part][:, None, :])[
                there[part][:, :, None] & fires[part][:, None, :]
            ]
            self.together.index_add_(0, pair, torch.ones(len(pair), dtype=torch.int32))

    def overlap(self) -> Overlap:
        return Overlap(
            self.n,
            self.together.view(self.shape).float(),
            self.features.float(),
            self.components.float(),
        )
