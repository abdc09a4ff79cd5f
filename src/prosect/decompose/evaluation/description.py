"""How much has to be written down? The length of a description of activations, at a fixed error.

L0 alone can be had by a larger dictionary, and error alone by more latents. Nats count both, and the dictionary
itself (Ayonrinde, Pearce & Sharkey 2024, "Interpretability as compression"). Codes are rounded as coarsely as the
error allows; each latent is then coded by the frequencies of its own rounded codes, absence being one of them; every
parameter of the decoder and every frequency costs ½ ln n (Rissanen 1978, "Modeling by shortest data description").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.decompose.contract import ActivationStream, Codes, Decomposition
from prosect.decompose.quality import Spread
from prosect.decompose.streams import finite_blocks

HALVINGS = 24


@runtime_checkable
class Curved(Protocol):
    """A decomposition whose decoder is no sum of directions.

    Attributes:
        sizes: how far a code of 1 moves what is written, root mean square; what codes are rounded by.
        decoder_parameters: numbers that the decoder is made of.
    """

    @property
    def sizes(self) -> Float[Tensor, " components"]: ...

    @property
    def decoder_parameters(self) -> int: ...


@dataclass(frozen=True)
class DescriptionLength:
    """What it takes to write activations down.

    Attributes:
        name: of the decomposition.
        positions: described.
        fvu: fraction of variance unexplained that was asked for.
        reached: what the rounded codes leave unexplained.
        step: to which codes, in units of what is written, were rounded.
        codes: nats for the codes of all positions, with the tables of frequencies.
        parts: nats for the directions of the components that are used, and what is written without them.
    """

    name: str
    positions: int
    fvu: float
    reached: float
    step: float
    codes: float
    parts: float

    @property
    def total(self) -> float:
        """Nats in all."""
        return self.codes + self.parts

    @property
    def per_position(self) -> float:
        """Nats for each position, the dictionary's share included."""
        return self.total / self.positions


def description_length(
    decomposition: Decomposition, stream: ActivationStream, fvu: float = 0.1
) -> DescriptionLength:
    """The nats that describe a stream's activations by a decomposition, up to an error.

    Args:
        decomposition: fitted, with `decode` and `directions` (or `Curved`), writing one site.
        stream: activations; their codes are held in memory.
        fvu: the error, from 0 to 1: a decomposition that cannot reach it cannot be compared at it.

    Raises:
        Unsupported: it cannot decode, or its own error is larger already; that is said.
        BadInput: the error asked for is not between 0 and 1.
        TooLittleData: fewer than two positions, or ones that do not vary.
    """
    if not 0 < fvu < 1:
        raise BadInput(f"an error of {fvu:g}", "a fraction of variance between 0 and 1")
    held = _Held.of(decomposition, stream)
    exact = held.fvu(0.0)
    if exact > fvu:
        raise Unsupported(
            f"an error of {fvu:g} with {decomposition.name}, which leaves {exact:.4f} unexplained",
            f"an error of at least {exact:.4f}",
        )
    low, high = -30.0, math.log(2.0 * max(held.largest, 1e-12))
    if held.fvu(math.exp(high)) <= fvu:
        low = high
    for _ in range(HALVINGS if low < high else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if held.fvu(math.exp(middle)) <= fvu else (low, middle)
    step = math.exp(low)
    return DescriptionLength(decomposition.name, held.n, fvu, held.fvu(step), step, *held.nats(step))


def error_at(decomposition: Decomposition, stream: ActivationStream, nats: int | float) -> DescriptionLength:
    """The other way round: the least error of a description of activations that is no longer than allowed.

    Args:
        decomposition: as for `description_length`.
        stream: activations; their codes are held in memory.
        nats: for all positions together, the dictionary included.

    Returns:
        The description; ``fvu`` and ``reached`` are the error.

    Raises:
        Unsupported: the decoder alone is longer.
        TooLittleData: fewer than two positions, or ones that do not vary.
    """
    held = _Held.of(decomposition, stream)
    high = math.log(4.0 * max(held.largest, 1e-12))  # at which every code is rounded away
    low = high - 20.0
    if sum(held.nats(math.exp(high))) > nats:
        raise Unsupported(
            f"a description by {decomposition.name} in {nats:,.0f} nats, of which its decoder takes "
            f"{held.nats(math.exp(high))[1]:,.0f}",
            "more nats, or a smaller decoder",
        )
    for _ in range(HALVINGS // 2 + 2):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(held.nats(math.exp(middle))) <= nats else (middle, high)
    step = math.exp(high)
    error = held.fvu(step)
    return DescriptionLength(decomposition.name, held.n, error, error, step, *held.nats(step))


@dataclass
class _Held:
    """Activations and codes, in memory."""

    decomposition: Decomposition
    y: list[Tensor]
    codes: list[Codes]
    sizes: Float[Tensor, " components"]
    spread: float
    n: int
    width: int

    @classmethod
    def of(cls, decomposition: Decomposition, stream: ActivationStream) -> _Held:
        along = "directions" in decomposition.supports or isinstance(decomposition, Curved)
        if "decode" not in decomposition.supports or not along or len(decomposition.writes) != 1:
            raise Unsupported(
                f"the description length of {decomposition.name}",
                "one that decodes to one site along directions",
            )
        sites = tuple(dict.fromkeys((*decomposition.reads, *decomposition.writes)))
        spread, y, codes = Spread(), [], []
        for block in finite_blocks(stream, sites):
            y.append(block[decomposition.writes[0]].to("cpu", torch.float64))
            codes.append(decomposition.encode(block))
            spread.add(y[-1])
        if spread.n < 2 or not spread.total > 0:
            raise TooLittleData(f"{spread.n} positions that do not vary", "at least two that differ")
        if isinstance(decomposition, Curved):
            sizes = decomposition.sizes.to("cpu", torch.float64)
        else:
            sizes = decomposition.directions.norm(dim=1).to("cpu", torch.float64)
        return cls(decomposition, y, codes, sizes, spread.total, spread.n, y[0].shape[1])

    @property
    def largest(self) -> float:
        """The largest code, in units of what is written."""
        return max(
            (
                float((c.values.cpu().double().abs() * self.sizes[c.indices.cpu()]).max())
                for c in self.codes
                if c.values.numel()
            ),
            default=0.0,
        )

    def levels(self, codes: Codes, step: float) -> Tensor:
        """Rounded codes, in steps."""
        return (codes.values.cpu().double() * self.sizes[codes.indices.cpu()] / step).round()

    def fvu(self, step: float) -> float:
        error = 0.0
        for y, codes in zip(self.y, self.codes, strict=True):
            if step > 0:
                size = self.sizes[codes.indices.cpu()]
                rounded = self.levels(codes, step) * step / torch.where(size > 0, size, 1.0)
                codes = Codes(codes.indices, rounded.to(codes.values), codes.width)
            made = self.decomposition.decode(codes)[self.decomposition.writes[0]]
            error += float((y - made.to(y)).square().sum())
        return error / self.spread

    def nats(self, step: float) -> tuple[float, float]:
        """For the codes and their tables, and for the decoder: of directions, those that are used."""
        keys = []
        for codes in self.codes:
            level = self.levels(codes, step)
            there = level != 0
            keys.append((codes.indices.cpu()[there], level[there].long()))
        at, levels = (torch.cat(part) for part in zip(*keys, strict=True))
        low = int(levels.min()) if len(levels) else 0
        each, counts = np.unique(
            ((levels - low) * self.decomposition.n_components + at).numpy(), return_counts=True
        )
        count = torch.from_numpy(counts).double()
        at = torch.from_numpy(each).long() % self.decomposition.n_components
        absent = torch.full((self.decomposition.n_components,), float(self.n), dtype=torch.float64)
        absent.index_add_(0, at, -count)
        used = len(np.unique(at.numpy()))
        every = self.decomposition.n_components * self.n * math.log(self.n)
        entropy = every - float(torch.xlogy(count, count).sum()) - float(torch.xlogy(absent, absent).sum())
        numbers = (
            self.decomposition.decoder_parameters
            if isinstance(self.decomposition, Curved)
            else self.width * (used + 1)
        )
        parameter = 0.5 * math.log(self.n)
        return max(entropy, 0.0) + parameter * len(count), parameter * numbers
