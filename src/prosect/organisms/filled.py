"""A module given its weights."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding to be filled. Given a weight it is not initialised, which on the meta device loads a compiler."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def filled(module: M, state: dict[str, np.ndarray]) -> M:
    """``module``, made on the meta device, with float32 weights from ``state``, in eval mode.

    Building on the meta device leaves the global random state alone: nothing is initialised to be replaced.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(w, np.float32)) for name, w in state.items()}
    module.load_state_dict(tensors, assign=True)
    module.eval()
    return module
