"""The text an audit reads: windows drawn at random from a part, and what a model has there, with its documents.

Everything an audit measures, it measures on the same windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import TooLittleData, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.decompose.activations import Runs
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.streams import ArrayStream

LEAST = 8
"""Documents that an interval over documents needs."""


@dataclass(frozen=True)
class Sample:
    """Some windows of some parts; a `Source` itself.

    Attributes:
        held: windows by part, one row each.
        digest: of the source, and of how windows were drawn.
        unit: what one independent unit is.
    """

    held: Mapping[str, tuple[Batch, ...]]
    digest: str
    unit: str

    @property
    def units(self) -> dict[str, int]:
        """Independent units in each part."""
        return {part: len({row.unit for b in rows for row in b.rows}) for part, rows in self.held.items()}

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Go through a part, so many windows at a time."""
        if part not in self.held:
            raise UnknownName("part", part, self.held)
        windows = self.held[part]
        for start in range(0, len(windows), rows):
            yield Batch.joined(windows[start : start + rows])


def sampled(source: Source, parts: Mapping[str, int], seed: Seed) -> Sample:
    """Windows drawn at random, a window of every unit before a second one of any.

    Args:
        source: where they come from.
        parts: most positions of each part.
        seed: of the draw.

    Raises:
        TooLittleData: a part has fewer than `LEAST` units.
    """
    held = {}
    for part, most in parts.items():
        windows = [batch.select([i]) for batch in source.batches(part, 64) for i in range(len(batch))]
        order = seed.child(part).numpy().permutation(len(windows))
        turn: dict[int, int] = {}
        ranked = []
        for place, i in enumerate(order.tolist()):
            unit = windows[i].rows[0].unit
            turn[unit] = turn.get(unit, 0) + 1
            ranked.append((turn[unit], place, i))
        kept, count = [], 0
        for _, _, i in sorted(ranked):
            if count >= most:
                break
            kept.append(i)
            count += windows[i].count
        held[part] = tuple(windows[i] for i in sorted(kept))
        units = len({w.rows[0].unit for w in held[part]})
        if units < LEAST:
            raise TooLittleData(
                f"{units} {source.unit} in {part}, {count:,} positions", f"at least {LEAST}", "more text"
            )
    return Sample(held, f"{source.digest}/{'+'.join(f'{p}:{n}' for p, n in parts.items())}", source.unit)


@dataclass(frozen=True)
class Seen:
    """Activations at scored positions.

    Attributes:
        x: for each site, (n, width), float32 on the CPU.
        unit: the unit of each position, numbered from 0 without gaps.
        tokens: the token at each position; None where inputs are none.
        following: the token after it, -1 at the end of a window; None likewise.
    """

    x: Mapping[str, Float[Tensor, "n _"]]
    unit: Int[np.ndarray, " n"]
    tokens: Int[Tensor, " n"] | None = None
    following: Int[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def units(self) -> int:
        """Independent units."""
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    @property
    def stream(self) -> ArrayStream:
        """As a stream, in order."""
        return ArrayStream(self.x)

    def beside(self, sites: Sequence[str]) -> Float[Tensor, "n _"]:
        """Several sites side by side."""
        return torch.cat([self.x[site] for site in sites], dim=1)

    def halves(self, seed: Seed) -> Int[Tensor, " m"]:
        """Positions in an order in which even and odd places are of different units, as many of each.

        Probes are fitted on even rows and scored on odd ones; so no document is in both.

        Raises:
            TooLittleData: there are fewer than two units.
        """
        if self.units < 2:
            raise TooLittleData(
                f"{self.units} independent unit", "at least two, to fit on one and score on another"
            )
        sizes = np.bincount(self.unit)
        order = seed.child("units").numpy().permutation(self.units)
        side = np.zeros(self.units, dtype=bool)
        total = [0, 0]
        for u in order[np.argsort(-sizes[order], kind="stable")].tolist():
            to = int(total[1] < total[0])
            side[u] = bool(to)
            total[to] += int(sizes[u])
        rng = seed.child("rows").numpy()
        sets = [rng.permutation(np.flatnonzero(side[self.unit] == s)) for s in (False, True)]
        m = min(map(len, sets))
        out = np.empty(2 * m, dtype=np.int64)
        out[0::2], out[1::2] = sets[0][:m], sets[1][:m]
        return torch.from_numpy(out)


def see(model: Runs, source: Source, part: str, sites: Sequence[str], rows: int = 16) -> Seen:
    """Run a model over a part and keep what is at some sites, in memory.

    Raises:
        TooLittleData: the part is empty.
    """
    kept: dict[str, list[Tensor]] = {site: [] for site in sites}
    units, tokens, following = [], [], []
    with torch.no_grad():
        for batch in source.batches(part, rows):
            trace = model.run(batch, capture=tuple(sites), stop_early=True)
            for site in sites:
                flat = batch.flat(trace[site])
                kept[site].append(flat.reshape(len(flat), -1).detach().to("cpu", torch.float32))
            units.append(batch.flat_units)
            if "input_ids" in batch.tensors:
                ids = batch.tensors["input_ids"].cpu()
                tokens.append(batch.flat(ids))
                following.append(batch.flat(_after(ids, batch)))
    if not units:
        raise TooLittleData(f"no rows in {part}", "at least one")
    unit = np.unique(np.concatenate(units), return_inverse=True)[1]
    return Seen(
        {site: torch.cat(parts) for site, parts in kept.items()},
        unit,
        torch.cat(tokens) if tokens else None,
        torch.cat(following) if following else None,
    )


def _after(ids: Tensor, batch: Batch) -> Tensor:
    """The token after each, -1 where the window ends."""
    out = torch.full_like(ids, -1)
    out[:, :-1] = ids[:, 1:]
    if batch.mask is not None:
        there = batch.mask.cpu()
        out[:, :-1][~there[:, 1:]] = -1
    return out


def encoded(dictionary: Dictionary, seen: Seen, rows: int = 4096) -> Codes:
    """A dictionary's codes of activations, on the CPU."""
    parts = []
    for start in range(0, len(seen), rows):
        found = dictionary.encode({site: seen.x[site][start : start + rows] for site in dictionary.reads})
        parts.append(Codes(found.indices.cpu(), found.values.cpu(), found.width))
    return Codes.joined(parts)
