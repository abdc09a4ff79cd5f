"""Activations made while they are used: a model runs, a buffer mixes, nothing is written.

For when a disk would not hold them. Each use costs the model's forward again; `harvest` pays it once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, TooLittleData
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.decompose.activations import Runs, check_sites, read
from prosect.decompose.base import SEED
from prosect.decompose.streams import BLOCK, shuffle

BUFFER = 2**16
"""Positions mixed at a time unless told otherwise."""


@runtime_checkable
class Shuffles(Protocol):
    """A source whose documents can be gone through in another order."""

    def shuffled(self, part: str, seed: Seed) -> Source:
        """The same inputs of ``part`` in an order drawn from ``seed``."""


class Group(NamedTuple):
    """Batches that are mixed together: their number, (words, batch) of each, and positions in all."""

    number: int
    batches: list[tuple[str, Batch]]
    positions: int


@dataclass(frozen=True)
class LiveStream:
    """A model's activations as a stream, made as they are asked for.

    Documents come in an order drawn from the seed, another one each time round, where the source can
    shuffle them. Batches that give at least ``buffer`` positions are run, their positions are mixed, and go
    out as blocks. What comes is determined by the arguments alone. Entered in the middle, the stream counts
    the positions of the batches before (which costs tokenising them) and runs the model from the buffer on
    in which the place lies: at most one buffer is made in vain.

    Args:
        model: what is run.
        source: where batches come from.
        part: which part of it.
        sites: what every block holds.
        positions: how many the stream gives; it goes round the source as often as that needs.
        seed: of the order of documents and the mixing.
        rows: rows of a batch.
        buffer: positions mixed at a time, kept where the model is.
        dtype: what numbers are kept as; None for the model's own.
        block: rows in a block.
        ahead: make the next buffer in a thread while this one is used, which holds two of them. For a model
            and a training on different devices; on the same cores they only take turns.

    Raises:
        BadInput: there are no sites, positions or buffer.
        Unsupported: a site has no one value at each position.
    """

    model: Runs
    source: Source
    part: str
    sites: tuple[str, ...]
    positions: int
    seed: Seed = SEED
    rows: int = 32
    buffer: int = BUFFER
    dtype: torch.dtype | None = None
    block: int = BLOCK
    ahead: bool = False

    def __post_init__(self) -> None:
        check_sites(self.sites)
        for name in ("positions", "rows", "buffer", "block"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} = {getattr(self, name)} of a stream", "at least 1")

    @cached_property
    def widths(self) -> dict[str, int]:
        """Width of each site; one batch is run to see."""
        where, batch = next(self._groups()).batches[0]
        return {site: x.shape[1] for site, x in self._read(where, batch).items()}

    @cached_property
    def digest(self) -> str:
        """Of everything that determines what comes, and in which order."""
        return digest(
            {
                "what": "live activations",
                "model": self.model.digest,
                "source": self.source.digest,
                "part": self.part,
                "sites": self.sites,
                "positions": self.positions,
                "seed": self.seed,
                "rows": self.rows,
                "buffer": self.buffer,
                "dtype": str(self.dtype),
            }
        )

    def __len__(self) -> int:
        return self.positions

    def shuffled(self, seed: Seed, epochs: int = 1) -> LiveStream:
        """The same source in an order drawn from ``seed``, ``epochs`` times as many positions."""
        return replace(self, seed=seed, positions=self.positions * epochs)

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """Blocks of at most `block` rows, from the beginning; the model runs.

        Raises:
            TooLittleData: the part is empty.
            NotFinite: an activation is NaN or infinite; site and batch are named.
        """
        return self.enter(0)[1]

    def enter(self, skip: int) -> tuple[int, Iterator[dict[str, Tensor]]]:
        """See `prosect.decompose.streams.Enterable`: the model does not run for buffers that lie before."""
        passed = 0
        groups = self._groups()
        for group in groups:
            if passed + group.positions > skip:
                return passed, self._blocks(itertools.chain([group], groups), self.positions - passed)
            passed += group.positions
        return passed, iter(())

    def batches(self) -> Iterator[Batch]:
        """What the model would run on, in the order of the documents; it is not run.

        Raises:
            TooLittleData: the part is empty.
        """
        for group in replace(self, buffer=1)._groups():
            yield group.batches[0][1]

    def _groups(self) -> Iterator[Group]:
        """Batches by the buffer, in order, until there are enough positions; none of them is run."""
        held: list[tuple[str, Batch]] = []
        number = waiting = total = 0
        for time in itertools.count():
            before = total
            for i, batch in enumerate(self._ordered(time).batches(self.part, self.rows)):
                if not batch.count:
                    continue
                held.append((f"batch {i} of {self.part}, time {time + 1} round", batch))
                waiting, total = waiting + batch.count, total + batch.count
                if waiting >= self.buffer or total >= self.positions:
                    yield Group(number, held, waiting)
                    held, waiting, number = [], 0, number + 1
                if total >= self.positions:
                    return
            if total == before:
                raise TooLittleData(f"no positions in {self.part}", "at least one")

    def _ordered(self, time: int) -> Source:
        if not isinstance(self.source, Shuffles):
            return self.source
        return self.source.shuffled(self.part, self.seed.child("documents", time))

    def _blocks(self, groups: Iterator[Group], left: int) -> Iterator[dict[str, Tensor]]:
        made = (self._made(group) for group in groups)
        for rows, order in in_advance(made) if self.ahead else made:
            for part in torch.split(order[:left], self.block):
                here = part.to(next(iter(rows.values())).device)
                yield {site: x[here] for site, x in rows.items()}
            left -= len(order)

    def _made(self, group: Group) -> tuple[dict[str, Tensor], Tensor]:
        """The activations of a group as the model gave them, and the order in which they go out."""
        rows: dict[str, Tensor] = {}
        at = 0
        for where, batch in group.batches:
            found = self._read(where, batch)
            if not rows:
                rows = {site: x.new_empty((group.positions, x.shape[1])) for site, x in found.items()}
            for site, x in found.items():
                rows[site][at : at + len(x)] = x
            at += batch.count
        return rows, shuffle(self.seed, group.positions, "buffer", group.number)

    def _read(self, where: str, batch: Batch) -> dict[str, Tensor]:
        return read(self.model, batch, self.sites, where, self.dtype)

    def __repr__(self) -> str:
        return f"LiveStream({', '.join(self.sites)}: {self.positions:,} positions, made as they are used)"


Item = TypeVar("Item")


def in_advance(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in the same order, the next being made in a thread while the last is used.

    What making an item raises is raised where it would have come.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prosect-ahead") as pool:
        coming = pool.submit(next, items, end)
        while True:
            item = coming.result()
            if item is end:
                return
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # not the end, so one of them
