"""Sweeps by whole passes: all positions of every row, from the first block or from behind one that no edit reaches.

Lists of edits are put side by side along the rows of one pass, as many as a memory budget holds. Draws of
`resample` and rows and positions of edits belong to the user's rows, so how a sweep is cut into passes
changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prosect.core.errors import ShapeMismatch
from prosect.data.batch import Batch
from prosect.model.apply import Block, Bound
from prosect.model.entry import After, entered

if TYPE_CHECKING:
    from prosect.model.model import Model


@dataclass(frozen=True)
class Cell:
    """One list of edits on some rows: what fills a stretch of one pass."""

    number: int
    edits: tuple[Bound, ...]
    rows: range


def bytes_of_row(model: Model, batch: Batch, routed: bool) -> int:
    """Memory that a row takes in one pass.

    Counts the output, its copy in the metric, a few widths of the stream and of an MLP four times as wide, and
    the attention patterns of one layer where they are computed in the open.
    """
    positions = 1 if batch.mask is None else int(batch.mask.shape[1])
    width = model.d_model or max([1, *(t[0].numel() for t in batch.tensors.values())])
    numbers = positions * (3 * (model.vocab_size or 0) + 16 * width)
    if routed:
        numbers += 4 * (model.n_heads or 1) * positions**2
    return numbers * torch.finfo(model.dtype).bits // 8


def rows_that_fit(model: Model, batch: Batch, budget_mb: int | float, routed: bool) -> int:
    """How many rows of one pass stay within the budget; at least one."""
    return max(1, int(budget_mb * 2**20 / bytes_of_row(model, batch, routed)))


def plan(edits: Sequence[tuple[int, tuple[Bound, ...]]], rows: int, fit: int) -> list[list[Cell]]:
    """Cells gathered into passes of at most ``fit`` rows.

    A list with a function in it gets all rows at once: what the function does may depend on them.

    Args:
        edits: numbered lists.
        rows: of the batch.
        fit: rows of one pass.
    """
    passes: list[list[Cell]] = []
    room = 0
    for number, listed in edits:
        whole = rows <= fit or any(b.edit.op == "replace" for b in listed)
        size = rows if whole else fit
        for start in range(0, rows, size):
            cell = Cell(number, listed, range(start, min(start + size, rows)))
            if room < len(cell.rows):
                passes.append([])
                room = max(fit, len(cell.rows))
            passes[-1].append(cell)
            room -= len(cell.rows)
    return passes


def enter_after(model: Model, edits: Sequence[Bound]) -> int | None:
    """The last block that no edit of a list reaches; None if every block must be computed."""
    found = [model.before(str(b.site)) for b in edits]
    return min((i for i in found if i is not None), default=None) if None not in found else None


def run(
    model: Model, batch: Batch, cells: Sequence[Cell], routed: bool, after: After | None = None
) -> list[Tensor]:
    """The output of each cell of one pass, (rows, positions, ...).

    Args:
        model: what is run.
        batch: the user's rows.
        cells: what fills the pass.
        routed: whether attention is computed in the open throughout.
        after: what a block gave for every row of ``batch``; the pass begins behind it.
    """
    index = [row for cell in cells for row in cell.rows]
    whole = len(cells) == 1 and index == list(range(len(batch)))
    expanded = batch if whole else batch.select(index)
    mask = None if batch.mask is None else batch.mask.cpu()
    blocks, start = [], 0
    for cell in cells:
        at = slice(start, start + len(cell.rows))
        real = None if mask is None else mask[cell.rows.start : cell.rows.stop]
        blocks.append((Block(at, tuple(cell.rows), len(batch), real), cell.edits))
        start = at.stop
    with ExitStack() as stack:
        if after is not None and model.blocks is not None:
            stack.enter_context(entered(model.blocks, After(after.layer, after.resid[index])))
        skipped = 0 if after is None else after.layer + 1
        output = model.runner.go(expanded, blocks, routed=routed, skipped=skipped).output
    if output is None or output.shape[0] != start:
        raise ShapeMismatch(
            "an output without the rows of the batch", "rows first", "a metric of another model"
        )
    return [output[block.at] for block, _ in blocks]
