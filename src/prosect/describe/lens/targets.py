"""Which token a lens is asked about at each position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.data.batch import Batch
from prosect.describe.lens.view import NOTHING

Targets = str | Callable[[Batch], Tensor]
"""The token asked about at each position: ``next`` of the text, the model's own likeliest (``final``), or a
function of the batch that gives (rows, positions): a token, or -1 for none."""


def targets_of(targets: Targets, batch: Batch, output: Tensor) -> Int[Tensor, "rows positions"]:
    """The token asked about at each position; -1 for none.

    Raises:
        UnknownName: no such choice.
        BadInput: a token outside the vocabulary.
        ShapeMismatch: not one token for each position.
    """
    ids = batch.tensors["input_ids"]
    if targets == "final":
        return output.argmax(dim=-1)
    if targets == "next":
        out = torch.full_like(ids, NOTHING)
        real = torch.ones_like(ids, dtype=torch.bool) if batch.mask is None else batch.mask
        out[:, :-1] = torch.where(real[:, 1:], ids[:, 1:], NOTHING)
        return out
    if not callable(targets):
        raise UnknownName("choice of targets", targets, ["next", "final"], "a function of a batch")
    made = targets(batch)
    if tuple(made.shape) != tuple(ids.shape):
        raise ShapeMismatch(
            f"targets of shape {tuple(made.shape)}", f"{tuple(ids.shape)}, one for each position"
        )
    if int(made.max()) >= output.shape[-1] or int(made.min()) < NOTHING:
        raise BadInput(f"a target outside the vocabulary of {output.shape[-1]}", "a token, or -1 for none")
    return made.to(ids.device)
