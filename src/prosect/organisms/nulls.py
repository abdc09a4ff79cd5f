"""Statistical nulls: what is known of inputs, cut loose from them, so that every claim that it holds is false.

Each keeps all else as it was: what is paired anew has the same distribution, over inputs as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from prosect.core.errors import ShapeMismatch
from prosect.core.seeds import Seed
from prosect.data.batch import Batch


class Paired(NamedTuple):
    """Values of other inputs.

    Attributes:
        values: for each row those of its partner, first axis rows; its own where it has none.
        valid: (rows,), whether it has one.
    """

    values: Tensor
    valid: Bool[Tensor, " rows"]


def partners(batch: Batch, seed: Seed) -> Int[np.ndarray, " rows"]:
    """For each row another one that is as long; every such row is taken once. Itself where there is no other."""
    lengths = np.asarray(batch.lengths if batch.mask is not None else np.ones(len(batch)))
    rng = seed.numpy()
    out = np.arange(len(lengths))
    for length in np.unique(lengths):
        order = rng.permutation(np.flatnonzero(lengths == length))
        out[order] = np.roll(order, 1)
    return out


def other_input(values: Tensor, batch: Batch, seed: Seed) -> Paired:
    """Activations, outputs or labels of each row's partner.

    Args:
        values: first axis rows.
        batch: the inputs that they are of.
        seed: of the pairing.

    Raises:
        ShapeMismatch: another number of rows.
    """
    if len(values) != len(batch):
        raise ShapeMismatch(f"values of {len(values)} rows", f"the batch's {len(batch)}")
    partner = partners(batch, seed)
    return Paired(values[torch.from_numpy(partner)], torch.from_numpy(partner != np.arange(len(partner))))


def shuffled_labels(labels: Tensor, where: Bool[Tensor, ...], seed: Seed) -> Tensor:
    """Labels with those at ``where`` permuted among themselves; the others stay.

    Args:
        labels: any shape.
        where: of that shape.
        seed: of the permutation.

    Raises:
        ShapeMismatch: another shape.
    """
    if labels.shape != where.shape:
        raise ShapeMismatch(
            f"places of shape {tuple(where.shape)}", f"that of the labels, {tuple(labels.shape)}"
        )
    out = labels.clone()
    some = labels[where]
    out[where] = some[torch.from_numpy(seed.numpy().permutation(len(some)))]
    return out
