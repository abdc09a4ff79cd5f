"""What sites hold under many lists of edits: the companion of a sweep, which gives numbers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prosect.data.batch import Batch
from prosect.model.apply import Block
from prosect.model.edits import Edit

if TYPE_CHECKING:
    from prosect.model.model import Model

ROWS = 64
"""Rows of one pass; a list of edits has at least a pass for all rows of the batch."""


def captures(
    model: Model, batch: Batch, lists: Sequence[Sequence[Edit]], sites: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """For each list of edits in turn, what ``sites`` hold for all rows; passes stop once they are read.

    Raises:
        NotFinite: NaN or infinity at one of them; and all that edits raise.
    """
    bound = [model.runner.bind(listed, batch) for listed in lists]
    rows = len(batch)
    together = max(1, ROWS // rows)
    mask = None if batch.mask is None else batch.mask.cpu()
    for start in range(0, len(bound), together):
        some = bound[start : start + together]
        expanded = batch if len(some) == 1 else batch.select(list(range(rows)) * len(some))
        blocks = [
            (Block(slice(k * rows, (k + 1) * rows), tuple(range(rows)), rows, mask), edits)
            for k, edits in enumerate(some)
        ]
        passed = model.runner.go(expanded, blocks, sites, stop_early=True)
        model.runner.check_finite(passed, expanded)
        for k in range(len(some)):
            yield {
                name: passed.values[str(model.sites.site(name))][k * rows : (k + 1) * rows] for name in sites
            }
