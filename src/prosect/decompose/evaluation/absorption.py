"""Absorption: a latent for something general falls silent where a more special latent says it too.

Sparsity pays for it: "begins with S" and "snake" cost two latents at snakes, or one if the snake's direction holds a
piece of the other's. The general latent then looks interpretable and has holes (Chanin et al. 2024, "A is for
absorption"). Measured where the truth is known (`planted_absorption`) and, from a probe, where it is not
(`absorption`, the definition of SAEBench).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.records import Measured
from prosect.decompose.contract import Codes, Decomposition
from prosect.decompose.evaluation.detection import LabelledStream
from prosect.decompose.evaluation.seeds import over_seeds

COSINE, SHARE, MOST = 0.1, 0.4, 3
"""What absorbs: latents this near the probe, this share of its projection together, and how many at most."""
LEAST = 20
"""Rows with and without a child that a parent must have been seen at."""


@dataclass(frozen=True)
class Absorption:
    """Absorption of one concept.

    Attributes:
        fraction: at each position given, the absorbers' share of what they and the main latents write along the
            probe; 0 where the main latents say it all, or too little is explained by absorbers.
        full: whether the main latents are silent there and a single other latent says the concept.
    """

    fraction: Float[Tensor, " n"]
    full: Bool[Tensor, " n"]

    @property
    def mean(self) -> float:
        """Mean fraction."""
        return float(self.fraction.mean())

    @property
    def rate(self) -> float:
        """Share of positions fully absorbed."""
        return float(self.full.double().mean())


def absorption(
    codes: Codes,
    directions: Float[Tensor, "latents width"],
    x: Float[Tensor, "n _"],
    probe: Float[Tensor, " _"],
    main: Sequence[int],
) -> Absorption:
    """Absorption at positions where a concept is present, from a probe for it.

    Args:
        codes: at those positions.
        directions: what each latent writes.
        x: the activations there, less what is written when no latent fires.
        probe: direction of the concept, any length.
        main: the latents that stand for the concept, such as the first `parts_of` of a `sparse_probe`.

    Raises:
        ShapeMismatch: the lengths do not fit.
        BadInput: the probe has length zero, or there are no main latents.
    """
    if len(codes) != len(x) or x.shape[1:] != probe.shape or directions.shape[1:] != probe.shape:
        raise ShapeMismatch(
            f"{len(codes)} codes, activations {tuple(x.shape)}, directions {tuple(directions.shape)}, probe "
            f"{tuple(probe.shape)}",
            "the same rows and widths",
        )
    if not len(main) or not bool(probe.norm() > 0):
        raise BadInput(f"{len(main)} main latents and a probe of length {probe.norm():g}", "neither empty")
    unit = probe.double() / probe.double().norm()
    along = directions.double() @ unit
    cosine = along / directions.double().norm(dim=1).clamp(min=1e-12)
    writes = codes.values.double() * along[codes.indices]
    is_main = torch.zeros(codes.width, dtype=torch.bool)
    is_main[torch.tensor(list(main))] = True
    ours = is_main[codes.indices]
    said = torch.where(ours, writes, 0.0).sum(dim=1)
    may = ~ours & (cosine[codes.indices] >= COSINE) & (writes > 0)
    other = torch.where(may, writes, 0.0)
    absorbed = other.topk(min(MOST, other.shape[1]), dim=1).values.sum(dim=1)
    wanted = x.double() @ unit
    applies = (wanted > 0) & (said < wanted) & (absorbed >= SHARE * wanted)
    missing = torch.minimum(absorbed, wanted - said)
    share = missing / (missing + said.clamp(min=0.0)).clamp(min=1e-12)
    silent = ~(ours & (codes.values != 0)).any(dim=1)
    single = torch.where(ours, 0.0, writes).max(dim=1).values >= SHARE * wanted
    return Absorption(torch.where(applies, share, 0.0), silent & (wanted > 0) & single)


@dataclass(frozen=True)
class PlantedAbsorption:
    """Holes in the latents of parents, where their children are.

    Attributes:
        parents: features with children that were seen with and without one of them.
        latents: the nearest latent of each, by direction.
        alone: share of a parent's presences without a child at which its latent fires.
        beside: the same where a child is present.
        absorbed: mean of ``alone`` minus ``beside`` over parents, with a 95 % interval over parents.
    """

    parents: Int[np.ndarray, " m"]
    latents: Int[np.ndarray, " m"]
    alone: Float[np.ndarray, " m"]
    beside: Float[np.ndarray, " m"]
    absorbed: Measured


def planted_absorption(
    decomposition: Decomposition,
    stream: LabelledStream,
    features: Float[Tensor, "features width"],
    parents: Int[np.ndarray, " features"],
) -> PlantedAbsorption:
    """How much more often the latent of a parent is silent where one of its children is present.

    Args:
        decomposition: fitted.
        stream: held-out activations with their features.
        features: true directions.
        parents: the parent of each feature, -1 without one.

    Raises:
        TooLittleData: no parent was seen `LEAST` times with and without a child.
    """
    at = np.unique(parents[parents >= 0])
    cosines = _cosines(decomposition.directions, features[torch.from_numpy(at)])
    latents = cosines.argmax(dim=1).numpy()
    counts = np.zeros((2, len(at)))
    fired = np.zeros((2, len(at)))
    above = torch.from_numpy(np.where(parents < 0, 0, parents))
    has = torch.from_numpy(parents >= 0)
    different, place = np.unique(latents, return_inverse=True)
    for block, indices, strengths in stream.labelled():
        there = Codes(indices, strengths, stream.features)
        present = (there.columns(at.tolist()) > 0).numpy()
        child = has[indices] & (strengths > 0)
        mark = torch.zeros((len(indices), stream.features))
        row = torch.arange(len(indices))[:, None].expand_as(indices)
        mark[row[child], above[indices][child]] = 1.0
        beside = (mark[:, torch.from_numpy(at)] > 0).numpy()
        on = (decomposition.encode(block).columns(different.tolist()) != 0).cpu().numpy()[:, place]
        for which, rows in enumerate((present & ~beside, present & beside)):
            counts[which] += rows.sum(axis=0)
            fired[which] += (rows & on).sum(axis=0)
    enough = counts.min(axis=0) >= LEAST
    if not enough.any():
        raise TooLittleData(
            f"no parent seen {LEAST} times with and without a child in {len(stream):,} rows",
            "one at least",
            "more rows",
        )
    alone, beside_ = (fired[which, enough] / counts[which, enough] for which in range(2))
    return PlantedAbsorption(
        at[enough], latents[enough], alone, beside_, over_seeds((alone - beside_).tolist(), "parent")
    )


def _cosines(directions: Tensor, features: Tensor) -> Tensor:
    a, b = (
        torch.nn.functional.normalize(rows.detach().to("cpu", torch.float64))
        for rows in (features, directions)
    )
    return a @ b.T
