"""Token inputs as tensors of a `Given`, and back as a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prosect.data.batch import Batch, Row


def handed(batch: Batch) -> dict[str, Tensor]:
    """``input_ids``, ``mask`` of real positions and ``special`` ones that statistics leave out."""
    assert batch.mask is not None
    special = torch.zeros_like(batch.mask) if batch.special is None else batch.special
    return {"input_ids": batch.tensors["input_ids"], "mask": batch.mask, "special": special}


def batch_of(tensors: Mapping[str, Tensor]) -> Batch:
    """The batch that was handed; every row is its own unit."""
    ids, mask = tensors["input_ids"], tensors["mask"]
    rows = tuple(Row(unit=i, document=str(i)) for i in range(len(ids)))
    return Batch({"input_ids": ids, "attention_mask": mask.long()}, mask, rows, tensors["special"])
