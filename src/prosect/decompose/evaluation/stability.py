"""Would another seed have found the same latents? Dictionaries trained alike are matched one to one.

Latents that only one seed finds are a fact about the seed as much as about the model (Paulo & Belrose 2025, "Sparse
autoencoders trained on the same data learn different features").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import ShapeMismatch, TooLittleData
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.seeds import over_pairs
from prosect.decompose.quality import recovery

SHARED = 0.7
"""Cosine from which a latent counts as the same, of what it reads and of what it writes."""


@dataclass(frozen=True)
class Agreement:
    """Two dictionaries, latents matched one to one so that what they write is as alike as can be.

    Attributes:
        writes: cosine of each latent of the first with its match, of what they write; 0 without a match.
        reads: the same of what they read.
    """

    writes: Float[Tensor, " latents"]
    reads: Float[Tensor, " latents"]

    @property
    def mcc(self) -> float:
        """Pairwise mean correlation coefficient (PW-MCC): mean cosine of what matched latents write."""
        return float(self.writes.mean())

    @property
    def shared(self) -> float:
        """Share of latents whose match reads and writes the same, both cosines at least `SHARED`."""
        return float(((self.writes >= SHARED) & (self.reads >= SHARED)).double().mean())


@dataclass(frozen=True)
class Stability:
    """Several dictionaries trained alike from different seeds.

    Attributes:
        mcc: `Agreement.mcc`, mean over all pairs.
        shared: `Agreement.shared`, mean over all pairs.
        latents: for each dictionary, how well each latent is found again: mean over the others of the cosine
            with its match.
        chance: `Agreement.mcc` of the first dictionary with as many random directions.
    """

    mcc: Measured
    shared: Measured
    latents: tuple[Float[Tensor, " latents"], ...]
    chance: float


def agreement(a: Dictionary, b: Dictionary) -> Agreement:
    """Match two dictionaries by what they write (Hungarian).

    Raises:
        ShapeMismatch: they do not read or write the same widths.
    """
    if a.encoder_.shape[1] != b.encoder_.shape[1]:
        raise ShapeMismatch(
            f"dictionaries that read {a.encoder_.shape[1]} and {b.encoder_.shape[1]} numbers", "as many"
        )
    found = recovery(b.decoder_, a.decoder_)
    there = found.match >= 0
    reads = torch.zeros_like(found.cosines)
    ours, theirs = a.encoder_.cpu().double()[there], b.encoder_.cpu().double()[found.match[there]]
    reads[there] = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
    return Agreement(found.cosines, reads)


def stability(dictionaries: Sequence[Dictionary], seed: Seed) -> Stability:
    """Compare dictionaries that differ in their seeds only.

    Args:
        dictionaries: fitted, at least two.
        seed: of the random directions they are compared with.

    Raises:
        TooLittleData: fewer than two.
        ShapeMismatch: they do not read or write the same widths.
    """
    n = len(dictionaries)
    if n < 2:
        raise TooLittleData(
            f"{n} dictionaries", "at least two, which make a pair", "training with another seed"
        )
    found = {
        (i, j): agreement(dictionaries[i], dictionaries[j]) for i in range(n) for j in range(n) if i != j
    }
    shape = dictionaries[0].decoder_.shape
    random = torch.randn(shape, generator=seed.torch(), dtype=torch.float64)
    return Stability(
        mcc=over_pairs(n, lambda i, j: found[i, j].mcc),
        shared=over_pairs(n, lambda i, j: found[i, j].shared),
        latents=tuple(
            torch.stack([found[i, j].writes for j in range(n) if j != i]).mean(dim=0) for i in range(n)
        ),
        chance=float(recovery(random, dictionaries[0].decoder_).cosines.mean()),
    )
