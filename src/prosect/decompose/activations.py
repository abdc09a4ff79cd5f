"""Activations on disk: harvested from a model once, streamed as often as needed.

Memory is bounded both ways: harvesting holds one shard, streaming a few, however much text there is.
"""

from __future__ import annotations

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
from prosect.decompose.streams import BLOCK, check_epochs, shuffle
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
        """``run(batch, capture=sites)``: a forward; its result gives (rows, positions, ...) for ``[site]``."""


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
        first = self.shards.load(0)
        return {site: first[site].shape[1] for site in self.sites}

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
        for epoch in range(self.epochs):
            order = shuffle(self.seed, len(self.shards), "epoch", epoch, "shards").tolist()
            for group, start in enumerate(range(0, len(order), self.buffer)):
                yield from self._mixed(order[start : start + self.buffer], epoch, group)

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
    stop_early: bool = False,
) -> ShardStream:
    """Run a model over a part of its data and keep what is at some sites, at real positions only.

    Interrupted, it goes on after the last complete shard and ends with the same bytes. On a finished
    folder it returns at once.

    Args:
        model: anything with ``run(batch, capture=sites)`` and a ``digest``.
        source: where batches come from.
        part: which part of it; what learns from activations may see ``explore`` only.
        sites: what to keep. What has more axes at a position, such as the heads of ``z.3``, is laid flat.
        folder: where to keep it.
        rows: rows of a batch.
        limit: positions to keep at most; None keeps all.
        dtype: what to keep numbers as; None for the model's own.
        shard_bytes: size of a shard at most.
        stop_early: ask ``run`` to leave the forward once every site has been read.

    Returns:
        The activations, in the order of the text; use `ShardStream.shuffled` for learning.

    Raises:
        NotFinite: an activation is NaN or infinite; the site and batch are named.
        Unsupported: a site has no one value at each position, such as attention probabilities.
        Conflict: the folder holds something else.
        TooLittleData: the part is empty.
    """
    if not sites or len(set(sites)) != len(sites):
        raise BadInput(f"the sites {sites}", "at least one, each once")
    if limit is not None and limit < 1:
        raise BadInput(f"a limit of {limit} positions", "at least 1")
    for site in sites:
        if site.startswith(("probs.", "scores.")):
            raise Unsupported(
                f"{site}, which is between two positions", "sites with one value at each position"
            )
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
        _fill(shards, model, source, dtype, {"stop_early": True} if stop_early else {})
    return ShardStream(shards)


def _fill(
    shards: Shards, model: Runs, source: Source, dtype: torch.dtype | None, options: dict[str, Any]
) -> None:
    """Write what is missing. Shards end at exact row counts, so a resumed one begins inside a batch."""
    about = shards.about
    sites, part, limit = tuple(about["sites"]), about["part"], about["limit"]
    held: dict[str, list[Tensor]] = {site: [] for site in sites}
    waiting, seen, done = 0, 0, shards.rows
    with progress_step(f"harvesting {', '.join(sites)}", unit="positions") as shown:
        shown.advance(done)
        for number, batch in enumerate(source.batches(part, about["rows"])):
            count = batch.count if limit is None else min(batch.count, limit - seen)
            known = min(max(done - seen, 0), count)  # positions of this batch that are on disk already
            seen += count
            if known < count:
                with torch.no_grad():
                    trace = model.run(batch, capture=sites, **options)
                for site in sites:
                    x = _rows(trace[site], batch, site, f"batch {number} of {part}")
                    held[site].append(x[known:count].to("cpu", dtype or x.dtype))
                del trace
                waiting += count - known
                per_shard = max(1, about["shard_bytes"] // sum(_bytes(held[site][0]) for site in sites))
                while waiting >= per_shard:
                    shards.append(_take(held, per_shard))
                    waiting -= per_shard
                shown.advance(count - known)
            if seen == limit:
                break
    if waiting:
        shards.append(_take(held, waiting))
    if not len(shards):
        raise TooLittleData(f"no positions in {part}", "at least one")
    shards.finish()


def _rows(x: Tensor, batch: Batch, site: str, where: str) -> Float[Tensor, "n width"]:
    """What is at a site at each real position, laid flat and checked."""
    try:
        flat = batch.flat(x)
    except ShapeMismatch as error:
        raise Unsupported(
            f"{site} of shape {tuple(x.shape)}", "one value at each row and position of the batch"
        ) from error
    flat = flat.detach().reshape(len(flat), -1)
    bad = len(flat) - int(torch.isfinite(flat).all(dim=1).sum())
    if bad:
        raise NotFinite(
            f"NaN or infinity at {bad} of {len(flat)} positions of {site} in {where}",
            "finite activations",
            "looking at that batch, or running the model in float32",
        )
    return flat


def _bytes(x: Tensor) -> int:
    return x.shape[1] * x.element_size()


def _take(held: dict[str, list[Tensor]], rows: int) -> dict[str, Tensor]:
    """Remove and return the first ``rows`` rows of what is held."""
    out = {}
    for site, pieces in held.items():
        joined = torch.cat(pieces)
        out[site] = joined[:rows]
        held[site] = [joined[rows:]] if len(joined) > rows else []
    return out
