"""Activations on disk: harvested from a model once, streamed as often as needed.

Memory is bounded both ways: harvesting holds one shard, streaming a few, however much text there is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, Unsupported
from prosect.core.progress import step as progress_step
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.decompose.streams import BLOCK, check_epochs, is_finite, shuffle
from prosect.store.shards import Shards

SHARD_BYTES = 2**26
"""Size of a shard unless told otherwise: 64 MiB."""


@runtime_checkable
class Runs(Protocol):
    """What harvesting needs of a model.

    Attributes:
        digest: of its configuration and weights.
    """

    @property
    def digest(self) -> str: ...

    def run(self, *args: Any, **options: Any) -> Any:
        """``run(batch, capture=sites, finite=False, stop_early=True)``: a forward.

        Its result gives (rows, positions, ...) for ``[site]``. It need not check that numbers are finite, and
        may stop once every site has been read.
        """


@dataclass(frozen=True)
class ShardStream:
    """Activations on disk as a stream; make one with `harvest` or `open_activations`.

    Shuffled, each epoch draws an order of the shards, loads a few at a time and mixes their rows, so that
    neighbours come from different documents while no more than ``buffer`` shards are in memory.

    Args:
        shards: the folder.
        seed: shuffles, anew in each epoch; None gives the rows in the order of the text.
        epochs: how often `blocks` goes through all rows.
        buffer: shards mixed at a time.
        block: rows in a block.
    """

    shards: Shards
    seed: Seed | None = None
    epochs: int = 1
    buffer: int = 4
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_epochs(self.epochs)
        if self.buffer < 1:
            raise BadInput(f"a buffer of {self.buffer} shards", "at least 1")

    @property
    def sites(self) -> tuple[str, ...]:
        """What every block holds."""
        return tuple(self.shards.about["sites"])

    @cached_property
    def widths(self) -> dict[str, int]:
        """Width of each site."""
        first = self.shards.shapes(0)
        return {site: first[site][1] for site in self.sites}

    @cached_property
    def digest(self) -> str:
        """Of the rows, the shuffle and the epochs."""
        return digest(
            {"shards": self.shards.digest, "seed": self.seed, "epochs": self.epochs, "buffer": self.buffer}
        )

    def __len__(self) -> int:
        return self.shards.rows * self.epochs

    def shuffled(self, seed: Seed, epochs: int = 1) -> ShardStream:
        """The same activations in an order drawn from ``seed``, another one in each epoch."""
        return replace(self, seed=seed, epochs=epochs)

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """Blocks of at most `block` rows.

        Raises:
            BadInput: a shard is gone, was cut short or changed; it is named.
        """
        return self.enter(0)[1]

    def enter(self, skip: int) -> tuple[int, Iterator[dict[str, Tensor]]]:
        """See `prosect.decompose.streams.Enterable`: groups of shards that lie before are not read."""
        passed, first = 0, 0
        for _, _, numbers in self._groups():
            rows = sum(self.shards.shards[i].rows for i in numbers)
            if passed + rows > skip:
                break
            passed, first = passed + rows, first + 1
        rest = itertools.islice(self._groups(), first, None)
        return passed, itertools.chain.from_iterable(
            self._mixed(numbers, epoch, group) for epoch, group, numbers in rest
        )

    def _groups(self) -> Iterator[tuple[int, int, list[int]]]:
        """(epoch, number, shards) of what is mixed together, in order; nothing is read."""
        for epoch in range(self.epochs):
            order = shuffle(self.seed, len(self.shards), "epoch", epoch, "shards").tolist()
            for group, start in enumerate(range(0, len(order), self.buffer)):
                yield epoch, group, order[start : start + self.buffer]

    def _mixed(self, numbers: list[int], epoch: int, group: int) -> Iterator[dict[str, Tensor]]:
        loaded = [self.shards.load(i) for i in numbers]
        rows = {site: torch.cat([tensors.pop(site) for tensors in loaded]) for site in self.sites}
        count = len(rows[self.sites[0]])
        order = shuffle(self.seed, count, "epoch", epoch, "group", group)
        for part in torch.split(order, self.block):
            yield {site: x[part] for site, x in rows.items()}

    def __repr__(self) -> str:
        return (
            f"ShardStream({', '.join(self.sites)}: {self.shards.rows:,} positions × {self.epochs} epochs "
            f"in {len(self.shards)} shards)"
        )


def open_activations(folder: Path) -> ShardStream:
    """The activations in a folder that `harvest` finished, in the order of the text.

    Raises:
        BadInput: there are none, or harvesting was interrupted.
        NewerSchema: a later prosect wrote them.
    """
    return ShardStream(Shards.open(folder))


def harvest(
    model: Runs,
    source: Source,
    part: str,
    sites: tuple[str, ...],
    folder: Path,
    rows: int = 32,
    limit: int | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    stop_early: bool = True,
) -> ShardStream:
    """Run a model over a part of its data and keep what is at some sites, at real positions only.

    All sites are read in one pass. Interrupted, it goes on after the last complete shard and ends with the
    same bytes: batches that are on disk are counted again, not run again. On a finished folder it returns
    at once.

    Args:
        model: anything with ``run(batch, capture=sites)`` and a ``digest``.
        source: where batches come from.
        part: which part of it; what learns from activations may see ``explore`` only.
        sites: what to keep. What has more axes at a position, such as the heads of ``z.3``, is laid flat.
        folder: where to keep it.
        rows: rows of a batch.
        limit: positions to keep at most; None keeps all.
        dtype: what to keep numbers as; None for the model's own. float16 and bfloat16 halve the bytes.
        shard_bytes: size of a shard at most.
        stop_early: ask ``run`` to leave the forward once every site has been read.

    Returns:
        The activations, in the order of the text; use `ShardStream.shuffled` for learning.

    Raises:
        NotFinite: an activation is NaN or infinite, or becomes so in ``dtype``; site and batch are named.
        Unsupported: a site has no one value at each position, such as attention probabilities.
        Conflict: the folder holds something else.
        TooLittleData: the part is empty.
    """
    check_sites(sites)
    if limit is not None and limit < 1:
        raise BadInput(f"a limit of {limit} positions", "at least 1")
    about: Json = {
        "what": "activations",
        "model": model.digest,
        "source": source.digest,
        "part": part,
        "sites": list(sites),
        "rows": rows,
        "limit": limit,
        "dtype": None if dtype is None else str(dtype),
        "shard_bytes": shard_bytes,
    }
    shards = Shards.begin(folder, about)
    if not shards.complete:
        _fill(shards, model, source, dtype, stop_early)
    return ShardStream(shards)


def _fill(shards: Shards, model: Runs, source: Source, dtype: torch.dtype | None, stop_early: bool) -> None:
    """Write what is missing. Shards end at exact row counts, so a resumed one begins inside a batch."""
    about = shards.about
    sites, part, limit = tuple(about["sites"]), about["part"], about["limit"]
    shard: dict[str, Tensor] = {}  # the one being filled, overwritten once it is on disk
    size, held, seen, done = 0, 0, 0, shards.rows
    with progress_step(f"harvesting {', '.join(sites)}", total=limit, unit="positions") as shown:
        shown.advance(done)
        for number, batch in enumerate(source.batches(part, about["rows"])):
            count = batch.count if limit is None else min(batch.count, limit - seen)
            known = min(max(done - seen, 0), count)  # positions of this batch that are on disk already
            seen += count
            if known < count:
                found = read(model, batch, sites, f"batch {number} of {part}", dtype, stop_early)
                if not shard:
                    size = max(1, about["shard_bytes"] // sum(_bytes(x) for x in found.values()))
                    size = size if limit is None else min(size, limit)
                    shard = {
                        site: torch.empty((size, x.shape[1]), dtype=x.dtype) for site, x in found.items()
                    }
                at = known
                while at < count:
                    taken = min(size - held, count - at)
                    for site, x in found.items():
                        shard[site][held : held + taken] = x[at : at + taken]
                    held, at = held + taken, at + taken
                    if held == size:
                        shards.append(shard)
                        held = 0
                del found
                shown.advance(count - known)
            if seen == limit:
                break
    if held:
        shards.append({site: x[:held] for site, x in shard.items()})
    if not len(shards):
        raise TooLittleData(f"no positions in {part}", "at least one")
    shards.finish()


def check_sites(sites: tuple[str, ...]) -> None:
    """Refuse what cannot be harvested.

    Raises:
        BadInput: there are no sites, or one of them twice.
        Unsupported: a site has no one value at each position.
    """
    if not sites or len(set(sites)) != len(sites):
        raise BadInput(f"the sites {sites}", "at least one, each once")
    for site in sites:
        if site.startswith(("probs.", "scores.")):
            raise Unsupported(
                f"{site}, which is between two positions", "sites with one value at each position"
            )


def read(
    model: Runs,
    batch: Batch,
    sites: tuple[str, ...],
    where: str,
    dtype: torch.dtype | None = None,
    stop_early: bool = True,
) -> dict[str, Float[Tensor, "n _"]]:
    """What is at some sites at each real position of a batch, laid flat and checked; where the model is.

    Args:
        model: see `harvest`.
        batch: what it runs on.
        sites: what is read.
        where: the batch in words, for messages.
        dtype: what to give; None for the model's own.
        stop_early: leave the forward once every site has been read.

    Raises:
        NotFinite: an activation is NaN or infinite, or becomes so in ``dtype``.
        Unsupported: a site has no one value at each position.
    """
    with torch.no_grad():  # what is read is checked here, where the batch is known
        trace = model.run(batch, capture=sites, finite=False, stop_early=stop_early)
    return {site: _rows(trace[site], batch, site, where, dtype) for site in sites}


def _rows(
    x: Tensor, batch: Batch, site: str, where: str, dtype: torch.dtype | None
) -> Float[Tensor, "n width"]:
    try:
        flat = batch.flat(x)
    except ShapeMismatch as error:
        raise Unsupported(
            f"{site} of shape {tuple(x.shape)}", "one value at each row and position of the batch"
        ) from error
    flat = flat.detach().reshape(len(flat), -1)
    kept = flat if dtype is None else flat.to(dtype)
    if is_finite(kept):
        return kept
    if is_finite(flat):
        raise NotFinite(
            f"activations up to {float(flat.abs().max()):.3g} of {site} in {where}, too large for {dtype}",
            "activations that stay finite",
            "bfloat16 or float32",
        )
    bad = len(flat) - int(torch.isfinite(flat).all(dim=1).sum())
    raise NotFinite(
        f"NaN or infinity at {bad} of {len(flat)} positions of {site} in {where}",
        "finite activations",
        "looking at that batch, or running the model in float32",
    )


def _bytes(x: Tensor) -> int:
    return x.shape[1] * x.element_size()
