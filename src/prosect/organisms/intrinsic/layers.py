"""Sparse activation functions that go where a ReLU goes.

TopK keeps the largest pre-activations of each input (Makhzani & Frey 2014, "k-Sparse autoencoders"). SoLU is
x · softmax(x) (Elhage et al. 2022, "Softmax linear units"): (4, 0, 0, 0) comes out almost as it went in, and
(4, 4, 4, 4) as (1, 1, 1, 1). That paper puts a LayerNorm after it, which gives the second as much length as the
first again; `solu(width, norm=True)` is both together.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import BadInput, ShapeMismatch


class TopK(nn.Module):
    """relu(x) where x is among the ``k`` largest of its row, 0 elsewhere; the gradient goes through those alone.

    Args:
        k: how many may be active, 1 or more.

    Raises:
        BadInput: ``k`` is below 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise BadInput(f"k={k}", "at least 1")
        self.k = k

    def forward(self, x: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """The same shape.

        Raises:
            ShapeMismatch: there are fewer than ``k`` units.
        """
        if x.shape[-1] < self.k:
            raise ShapeMismatch(f"{x.shape[-1]} units", f"at least k={self.k}", "a smaller k")
        values, at = x.relu().topk(self.k, dim=-1)
        return torch.zeros_like(x).scatter(-1, at, values)

    def extra_repr(self) -> str:
        return f"k={self.k}"


class SoLU(nn.Module):
    """x · softmax(x) over the last axis."""

    def forward(self, x: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """The same shape."""
        return x * x.softmax(dim=-1)


def solu(width: int, norm: bool = True) -> nn.Sequential:
    """SoLU, and a LayerNorm over ``width`` units after it unless ``norm`` is off: one module to drop in."""
    return nn.Sequential(SoLU(), nn.LayerNorm(width) if norm else nn.Identity())
