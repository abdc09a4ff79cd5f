"""A network whose weights say nothing: the model null, at the scale of the network that it stands beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from prosect.core.seeds import Seed

M = TypeVar("M", bound=nn.Module)


def redrawn(module: M, seed: Seed, kept: Callable[[str], bool] = lambda name: False) -> M:
    """``module`` itself, with every weight drawn from a normal distribution of the root mean square it had.

    Args:
        module: changed in place.
        seed: of the draws; each weight has its own by name.
        kept: names of parameters that stay as they are.
    """
    with torch.no_grad():
        for name, weights in module.named_parameters():
            if not kept(name):
                size = weights.pow(2).mean().sqrt()
                drawn: Tensor = torch.randn(weights.shape, generator=seed.child(name).torch())
                weights.copy_(drawn * size)
    return module
