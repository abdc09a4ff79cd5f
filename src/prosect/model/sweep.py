"""Many edits of the same rows: the one way to run them.

Lists of edits are put side by side along the rows of one pass, as many as a memory budget holds. Draws of
`resample` and rows and positions of edits belong to the user's rows, so how a sweep is cut into passes
changes nothing but rounding.

Every pass here is a full forward. A pass that skips the blocks before the first edited layer, or recomputes
only the positions that an edit can reach, belongs in `_pass`, which is the only place that runs the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.core.progress import step
from prosect.data.batch import Batch
from prosect.model.apply import Block, Bound
from prosect.model.edits import Edit

if TYPE_CHECKING:
    from prosect.model.model import Model

Metric = Callable[[Tensor, Batch], Tensor]
"""(main output for some rows, those rows) → one number for each of them, from that row alone."""


@dataclass(frozen=True)
class Cell:
    """One list of edits on some rows: what fills a stretch of one pass."""

    number: int
    edits: tuple[Bound, ...]
    rows: range


def sweep(
    model: Model,
    edits: Sequence[Sequence[Edit]],
    batch: object,
    metric: Metric,
    budget_mb: int | float = 512.0,
) -> Float[np.ndarray, "edits rows"]:
    """One number for each list of edits and each row.

    Args:
        model: what is run.
        edits: lists of edits; an empty one is the model as it is.
        batch: the rows, as `Model.batch` takes them.
        metric: output and batch → (rows,). It may be called on some of the rows at a time.
        budget_mb: memory that one pass may take for what flows through it, as estimated; at least one row
            is run at a time, whatever it takes.

    Returns:
        float64.

    Raises:
        BadInput: a row, position or head that is not there; a budget that is not positive.
        ShapeMismatch: a value that does not fit, a metric that does not give one number for each row.
        NotFinite: the metric gave NaN or infinity.
    """
    if not budget_mb > 0:
        raise BadInput(f"a budget of {budget_mb} MB", "more than 0")
    rows = model.batch(batch)  # type: ignore[arg-type]
    bound = [tuple(model.runner.bind(listed, rows)) for listed in edits]
    routed = any(b.entry.place.inside for listed in bound for b in listed)
    passes = plan(bound, len(rows), rows_that_fit(model, rows, budget_mb, routed))
    out = np.full((len(bound), len(rows)), np.nan)
    with step("edits", total=len(bound) * len(rows), unit="rows") as progress:
        for cells in passes:
            for cell, output in _pass(model, rows, cells, routed):
                out[cell.number, cell.rows.start : cell.rows.stop] = _measured(metric, output, rows, cell)
                progress.advance(len(cell.rows))
    return out


def rows_that_fit(model: Model, batch: Batch, budget_mb: int | float, routed: bool) -> int:
    """How many rows of one pass stay within the budget.

    Counts, for each row, the output, its copy in the metric, a few widths of the stream and of an MLP
    four times as wide, and the attention patterns of one layer where they are computed in the open.
    """
    positions = 1 if batch.mask is None else int(batch.mask.shape[1])
    width = model.d_model or max([1, *(t[0].numel() for t in batch.tensors.values())])
    numbers = positions * (3 * (model.vocab_size or 0) + 16 * width)
    if routed:
        numbers += 4 * (model.n_heads or 1) * positions**2
    size = torch.finfo(model.dtype).bits // 8
    return max(1, int(budget_mb * 2**20 / (numbers * size)))


def plan(edits: Sequence[tuple[Bound, ...]], rows: int, fit: int) -> list[list[Cell]]:
    """Cells gathered into passes of at most ``fit`` rows.

    A list with a function in it gets all rows at once: what the function does may depend on them.
    """
    passes: list[list[Cell]] = []
    room = 0
    for number, listed in enumerate(edits):
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


def _pass(model: Model, batch: Batch, cells: Sequence[Cell], routed: bool) -> list[tuple[Cell, Tensor]]:
    """Run the cells of one pass; each with the output for its rows."""
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
    output = model.runner.go(expanded, blocks, routed=routed).output
    if output is None or output.shape[0] != start:
        raise ShapeMismatch(
            "an output without the rows of the batch", "rows first", "a metric of another model"
        )
    return [(cell, output[block.at]) for cell, (block, _) in zip(cells, blocks, strict=True)]


def _measured(metric: Metric, output: Tensor, batch: Batch, cell: Cell) -> np.ndarray:
    rows = batch if len(cell.rows) == len(batch) else batch.select(list(cell.rows))
    value = metric(output, rows)
    if not isinstance(value, Tensor) or tuple(value.shape) != (len(rows),):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeMismatch(f"{got} from the metric", f"({len(rows)},): one number for each row")
    numbers = value.detach().double().cpu().numpy()
    if not np.isfinite(numbers).all():
        words = ", ".join(b.words for b in cell.edits) or "no edit"
        raise NotFinite(
            f"{numbers[~np.isfinite(numbers)][0]} from the metric under {words}", "finite numbers"
        )
    return np.asarray(numbers)
