"""Long sums cut into parts that are added up in an order that does not change.

A latent may fire at a few positions or at all of them. One program for each latent would leave a GPU waiting for the
busiest; adding up as it comes (atomics) would round otherwise every time. So a latent's picks are cut into chunks of at
most some size. A sum of one chunk goes to its place at once; where there are several, each goes to a row of its own
behind the result, and these are added up in their order afterwards. How many rows and programs that can take at most
follows from the number of picks alone, so nothing has to be asked of the GPU in between.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Sums(NamedTuple):
    """Sums over stretches of a list; some entries may stand for none.

    Attributes:
        begins: where each begins.
        ends: where it ends; what is not beyond the beginning is empty.
        places: the row of the result that it goes to; -1 for none.
    """

    begins: Int[Tensor, " s"]
    ends: Int[Tensor, " s"]
    places: Int[Tensor, " s"]


class Chunks(NamedTuple):
    """The sums of all segments, in two rounds.

    Attributes:
        first: sums over the list, to the segments' rows, or to rows behind them.
        second: sums over rows of the result; None where no segment can have several chunks.
        rows: of the result: one for each segment, and those behind.
    """

    first: Sums
    second: Sums | None
    rows: int


def ends_of(starts: Int[Tensor, " segments"], count: int) -> Int[Tensor, " segments"]:
    """Where segments end that lie one after another in a list of ``count``."""
    return torch.cat([starts[1:], starts.new_full((min(1, len(starts)),), count)])


def chunked(starts: Int[Tensor, " segments"], count: int, size: int) -> Chunks:
    """The sums of segments that lie one after another in a list of ``count``, ``size`` at a time at most.

    Args:
        starts: where each begins, ascending; equal ones are empty but for the last of them.
        count: the list's length.
        size: of a chunk.
    """
    segments, device = len(starts), starts.device
    every = torch.arange(segments, device=device)
    ends = ends_of(starts, count)
    if count <= size:
        return Chunks(Sums(starts, ends, every), None, segments)
    # an empty segment has a chunk too, which writes its zeros
    chunks = torch.div(ends - starts + size - 1, size, rounding_mode="floor").clamp(min=1)
    upto = chunks.cumsum(0)
    chunk = torch.arange(segments + count // size, device=device)  # at least as many as there are
    owner = torch.searchsorted(upto, chunk, right=True)
    real = owner < segments
    owner = owner.clamp(max=segments - 1)
    nth = chunk - (upto - chunks)[owner]
    begins = starts[owner] + nth * size
    several = chunks > 1
    behind = torch.where(several, chunks, 0)
    slots = segments + behind.cumsum(0) - behind
    places = torch.where(several[owner], slots[owner] + nth, owner)
    first = Sums(
        begins,
        torch.where(real, torch.minimum(begins + size, ends[owner]), begins),
        torch.where(real, places, -1),
    )
    second = Sums(slots, slots + behind, torch.where(several, every, -1))
    # a segment longer than a chunk has at most twice as many chunks as whole ones
    return Chunks(first, second, segments + 2 * (count // size))
