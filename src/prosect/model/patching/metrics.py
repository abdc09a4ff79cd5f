"""Metrics that know which row they are given, and their values on runs that nothing is done to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.data.batch import Batch, Row
from prosect.model.reads import Positions

if TYPE_CHECKING:
    from prosect.model.model import Model

Metric = Callable[[Tensor, Batch], Tensor]
"""(main output for some rows, those rows) → one number for each of them, from that row alone."""


def by_row(batch: Batch, function: Callable[[Tensor, Batch, list[int]], Tensor]) -> Metric:
    """A metric that is told which rows of ``batch`` it is given, however a sweep cuts them.

    Args:
        batch: all rows; no two with the same id.
        function: output, rows, and their numbers in ``batch`` → (rows,).

    Raises:
        BadInput: two rows with the same id.
    """
    number: dict[Row, int] = {row: i for i, row in enumerate(batch.rows)}
    if len(number) < len(batch):
        raise BadInput("two rows with the same unit, document and offset", "ids that tell rows apart")

    def metric(output: Tensor, rows: Batch) -> Tensor:
        unknown = [row for row in rows.rows if row not in number]
        if unknown:
            raise UnknownName("row", str(unknown[0]), [str(r) for r in batch.rows[:4]])
        return function(output, rows, [number[row] for row in rows.rows])

    return metric


def logit_difference(batch: Batch, right: Sequence[int], wrong: Sequence[int], position: int = -1) -> Metric:
    """Logit of the right answer minus that of the wrong one, at one real position of each row.

    Args:
        batch: all rows.
        right: an output for each row.
        wrong: another for each row.
        position: negatives from the end of each row.
    """
    for name, tokens in (("right", right), ("wrong", wrong)):
        if len(tokens) != len(batch):
            raise ShapeMismatch(f"{len(tokens)} {name} answers", f"one for each of {len(batch)} rows")
    answers = torch.tensor([list(right), list(wrong)])

    def difference(output: Tensor, rows: Batch, which: list[int]) -> Tensor:
        lengths = torch.as_tensor(rows.lengths, device=output.device)
        column = lengths + position if position < 0 else torch.full_like(lengths, position)
        at = torch.arange(len(rows), device=output.device)
        a, b = answers[:, which].to(output.device)
        return output[at, column, a] - output[at, column, b]

    return by_row(batch, difference)


def measured_by(
    model: Model, batch: Batch, metric: Metric, budget_mb: int | float, reads: Positions | None = None
) -> Tensor:
    """The metric on a run that nothing is done to, (rows,) float64."""
    return torch.as_tensor(model.sweep([[]], batch, metric, budget_mb, reads)[0])
