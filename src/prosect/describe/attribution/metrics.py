"""Numbers of a model's output that are worth attributing: one for each row, whichever rows a pass holds.

A pass may hold some rows of a batch, in any order and more than once. What belongs to a row is therefore found
by the row's identity, not by its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.data.batch import Batch
from prosect.model.sweep import Metric

Tokens = int | Sequence[int]


def by_row(batch: Batch, values: Sequence[int]) -> Callable[[Batch], Tensor]:
    """(some rows of ``batch``) → the values that belong to them, (rows,).

    Raises:
        ShapeMismatch: not one value for each row.
        BadInput: two rows of one identity with different values.
    """
    if len(values) != len(batch):
        raise ShapeMismatch(f"{len(values)} values for {len(batch)} rows", "one for each row")
    known: dict[object, int] = {}
    for row, value in zip(batch.rows, values, strict=True):
        if known.setdefault(row, int(value)) != int(value):
            raise BadInput(f"{row} twice, with different values", "rows that can be told apart")
    return lambda part: torch.tensor([known[row] for row in part.rows])


def logit(
    token: Tokens,
    against: Tokens | None = None,
    *,
    batch: Batch | None = None,
    position: int = -1,
    scale: Literal["logit", "log-probability"] = "logit",
) -> Metric:
    """What a language model gives a token at one position of each row.

    Args:
        token: its id, or one for each row of ``batch``.
        against: a token whose logit is subtracted, likewise.
        batch: the rows that lists of tokens belong to, as `Model.batch` gives them.
        position: which real position, negatives from the end of each row.
        scale: logits, or their logarithmic softmax (nats), which depends on all tokens.

    Raises:
        BadInput: lists of tokens without a batch.
        ShapeMismatch: lists that do not have one token for each row.
    """
    chosen, other = _tokens(token, batch), None if against is None else _tokens(against, batch)

    def metric(output: Float[Tensor, "rows positions vocab"], part: Batch) -> Float[Tensor, " rows"]:
        lengths = torch.as_tensor(part.lengths)
        at = lengths + position if position < 0 else torch.full_like(lengths, position)
        if bool(((at < 0) | (at >= lengths)).any()):
            raise BadInput(f"position {position} in a row of {int(lengths.min())}", "a position of every row")
        rows = torch.arange(len(part), device=output.device)
        read = output[rows, at.to(output.device)]
        if scale == "log-probability":
            read = read.log_softmax(dim=-1)
        value = read[rows, chosen(part).to(output.device)]
        return value if other is None else value - read[rows, other(part).to(output.device)]

    return metric


def _tokens(given: Tokens, batch: Batch | None) -> Callable[[Batch], Tensor]:
    if isinstance(given, int):
        return lambda part: torch.full((len(part),), given)
    if batch is None:
        raise BadInput("a token for each row without the rows", "batch=, as Model.batch gives it")
    return by_row(batch, list(given))
