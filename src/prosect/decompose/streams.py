"""Activations in memory as a stream, and the few things every consumer of a stream does.

A stream on disk is in `prosect.decompose.activations`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import digest, digest_tensors
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.contract import ActivationStream

BLOCK = 8192
"""Positions in a block."""


@dataclass(frozen=True)
class ArrayStream:
    """Activations held in memory.

    Args:
        arrays: for each site, (n, width).
        seed: shuffles the rows, anew in each epoch; None leaves them in order.
        epochs: how often `blocks` goes through all rows.
        block: rows in a block.

    Raises:
        ShapeMismatch: an array is not (n, width), or they disagree on n.
        TooLittleData: there are no rows.
    """

    arrays: Mapping[str, Float[Tensor, "n _"]]
    seed: Seed | None = None
    epochs: int = 1
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_epochs(self.epochs)
        rows = {site: len(a) for site, a in self.arrays.items()}
        if any(a.ndim != 2 for a in self.arrays.values()) or len(set(rows.values())) > 1:
            shapes = {site: tuple(a.shape) for site, a in self.arrays.items()}
            raise ShapeMismatch(
                f"arrays {shapes}", "(positions, width) with the same positions at every site"
            )
        if not rows or not min(rows.values()):
            raise TooLittleData("no activations", "at least one position")

    @property
    def sites(self) -> tuple[str, ...]:
        """What every block holds."""
        return tuple(self.arrays)

    @property
    def widths(self) -> dict[str, int]:
        """Width of each site."""
        return {site: a.shape[1] for site, a in self.arrays.items()}

    @cached_property
    def digest(self) -> str:
        """Of the numbers, the shuffle and the epochs."""
        return digest({"arrays": digest_tensors(self.arrays), "seed": self.seed, "epochs": self.epochs})

    def __len__(self) -> int:
        return self._rows * self.epochs

    @property
    def _rows(self) -> int:
        return len(next(iter(self.arrays.values())))

    def shuffled(self, seed: Seed, epochs: int = 1) -> ArrayStream:
        """The same activations in an order drawn from ``seed``, another one in each epoch."""
        return replace(self, seed=seed, epochs=epochs)

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """Blocks of `block` rows; the last of each epoch may be shorter."""
        for epoch in range(self.epochs):
            order = shuffle(self.seed, self._rows, "epoch", epoch)
            for part in torch.split(order, self.block):
                yield {site: a[part.to(a.device)] for site, a in self.arrays.items()}


@runtime_checkable
class Enterable(Protocol):
    """A stream that can be entered in the middle for less than making all that lies before."""

    def enter(self, skip: int) -> tuple[int, Iterator[dict[str, Tensor]]]:
        """Positions passed over without making them, at most ``skip``, and the blocks from there on."""


@dataclass(frozen=True)
class Limited:
    """The first positions of a stream; make one with `limited`."""

    stream: ActivationStream
    positions: int

    def __post_init__(self) -> None:
        if not 1 <= self.positions <= len(self.stream):
            raise TooLittleData(
                f"{len(self.stream):,} positions in a stream", f"the {self.positions:,} that are asked for"
            )

    @property
    def sites(self) -> tuple[str, ...]:
        """What every block holds."""
        return self.stream.sites

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of each site."""
        return self.stream.widths

    @cached_property
    def digest(self) -> str:
        """Of the stream and where it ends."""
        return digest({"stream": self.stream.digest, "positions": self.positions})

    def __len__(self) -> int:
        return self.positions

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """The stream's blocks, the last one cut."""
        return self.enter(0)[1]

    def enter(self, skip: int) -> tuple[int, Iterator[dict[str, Tensor]]]:
        """See `Enterable.enter`."""
        passed, blocks = entered(self.stream, skip)
        return passed, self._cut(blocks, self.positions - passed)

    @staticmethod
    def _cut(blocks: Iterator[dict[str, Tensor]], left: int) -> Iterator[dict[str, Tensor]]:
        for block in blocks:
            if left <= 0:
                return
            yield {site: x[:left] for site, x in block.items()}
            left -= len(next(iter(block.values())))
            if left <= 0:
                return  # what lies beyond is not even made


def limited(stream: ActivationStream, positions: int) -> ActivationStream:
    """The first ``positions`` of a stream; the stream itself where that is all of it.

    Raises:
        TooLittleData: it has fewer, or none are asked for.
    """
    return stream if positions == len(stream) else Limited(stream, positions)


def entered(stream: ActivationStream, skip: int) -> tuple[int, Iterator[dict[str, Tensor]]]:
    """Positions passed over without making them, at most ``skip``, and the blocks from there on."""
    return stream.enter(skip) if skip and isinstance(stream, Enterable) else (0, stream.blocks())


def shuffle(seed: Seed | None, n: int, *names: str | int) -> Tensor:
    """0 to n-1 in an order drawn from the child ``names`` of ``seed``; in order without one."""
    if seed is None:
        return torch.arange(n)
    return torch.randperm(n, generator=seed.child(*names).torch())


def check_epochs(epochs: int) -> None:
    """Raises BadInput unless it is at least 1."""
    if epochs < 1:
        raise BadInput(f"{epochs} epochs", "at least 1")


def finite_blocks(
    stream: ActivationStream, sites: tuple[str, ...], skip: int = 0
) -> Iterator[dict[str, Tensor]]:
    """The blocks of a stream at some sites, checked as they pass.

    Args:
        stream: the activations.
        sites: what each block holds.
        skip: positions at the beginning to leave out. A stream that can be entered in the middle
            (`Enterable`) does not make them.

    Raises:
        ShapeMismatch: a block is not as wide as the stream says.
        NotFinite: an activation is NaN or infinite.
    """
    passed, blocks = entered(stream, skip)
    skip -= passed
    for number, block in enumerate(blocks):
        where = f"block {number}" + (f" after the first {passed:,} positions" if passed else "")
        n = len(block[sites[0]])
        if skip >= n:
            skip -= n
            continue
        out = {}
        for site in sites:
            x = block[site]
            if x.shape[1] != stream.widths[site]:
                raise ShapeMismatch(
                    f"width {x.shape[1]} at {site} in {where}", f"{stream.widths[site]} throughout"
                )
            if not is_finite(x):
                bad = int((~torch.isfinite(x).all(dim=1)).sum())
                raise NotFinite(
                    f"NaN or infinity at {bad} of {n} positions of {site} in {where}",
                    "finite activations",
                    "looking for the input that causes it, or harvesting in float32",
                )
            out[site] = x[skip:]
        skip = 0
        yield out


def is_finite(x: Tensor) -> bool:
    """Whether every number is finite. A sum is finite only if every term is, and costs less to look at."""
    return math.isfinite(x.sum(dtype=torch.promote_types(x.dtype, torch.float32)).item()) or bool(
        torch.isfinite(x).all()
    )


def batches(
    stream: ActivationStream, sites: tuple[str, ...], rows: int, skip: int = 0
) -> Iterator[dict[str, Tensor]]:
    """A stream cut into batches of exactly ``rows`` positions; what is left at the end is dropped.

    Each batch is a fresh copy, so that it lies in memory the same way wherever the stream is entered:
    matrix products may differ in the last bit between differently aligned operands.

    Args:
        stream: the activations.
        sites: what each batch holds.
        rows: positions in a batch.
        skip: positions at the beginning to pass over.
    """
    pieces: list[dict[str, Tensor]] = []
    missing = rows
    for block in finite_blocks(stream, sites, skip):
        n, start = len(block[sites[0]]), 0
        while start < n:
            taken = min(missing, n - start)
            pieces.append({site: x[start : start + taken] for site, x in block.items()})
            start, missing = start + taken, missing - taken
            if not missing:
                yield {site: torch.cat([piece[site] for piece in pieces]) for site in sites}
                pieces, missing = [], rows


def first(stream: ActivationStream, n: int) -> ArrayStream:
    """The first ``n`` positions of a stream (all, if it has fewer), in memory.

    Of a shuffled stream that is a random sample.
    """
    held: list[dict[str, Tensor]] = []
    count = 0
    for block in finite_blocks(stream, stream.sites):
        held.append({site: x[: n - count] for site, x in block.items()})
        count += len(held[-1][stream.sites[0]])
        if count >= n:
            break
    return ArrayStream({site: torch.cat([h[site] for h in held]) for site in stream.sites})


def whole(
    name: str, stream: ActivationStream, site: str, budget: int, copies: int
) -> Float[Tensor, "n width"]:
    """All activations at a site in one float64 array, for methods that need them so.

    Args:
        name: of the method, for messages.
        stream: the activations.
        site: which of them.
        budget: bytes that the method may use.
        copies: arrays of that size that it needs in all.

    Raises:
        Unsupported: it would need more than the budget.
    """
    n, width = len(stream), stream.widths[site]
    bytes_needed = n * width * 8 * copies
    if bytes_needed > budget:
        fits = budget // (width * 8 * copies)
        raise Unsupported(
            f"{n:,} positions of {site} for {name}, which works on the whole array "
            f"({bytes_needed / 2**20:,.0f} MiB)",
            f"at most {budget / 2**20:,.0f} MiB",
            f"fitting it on a sample, first(stream, {fits}), or a larger budget, or pca, which streams",
        )
    out = torch.empty((n, width), dtype=torch.float64)
    at = 0
    for block in finite_blocks(stream, (site,)):
        stop = at + len(block[site])
        if stop > n:
            break
        out[at:stop], at = block[site], stop
    if at != n:
        raise ShapeMismatch(
            f"a stream that says {n} positions and gives another number", "as many as it says"
        )
    return out
