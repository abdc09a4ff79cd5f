"""Standard normal inputs, for the organisms that need nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.organisms.sources import BLOCK, StreamedSource, parts


def normal(
    name: str,
    width: int,
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 512,
    sealed: int = 512,
    shift: int = 512,
) -> StreamedSource:
    """Inputs ``inputs`` (n, width), independent and standard normal; in ``shift`` twice as large."""
    root = Seed(seed).child(name, "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.randn(BLOCK, width, generator=root.child(part, block).torch())
        return {"inputs": drawn * (2.0 if part == "shift" else 1.0)}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of(name, seed, make, units)
