"""Inputs as sums of waves: a step changes every frequency alike, rather than every pixel.

Natural images have amplitudes that fall as one over the frequency. Scaling the frequencies so makes their
coefficients alike in size and unrelated, so that gradient ascent does not pile up high frequencies (Olah et al.
2017, "Feature Visualization", section "Preconditioning and parameterization").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput


@dataclass(frozen=True)
class Waves:
    """Inputs of a shape as waves over its last axes.

    Attributes:
        shape: of one input.
        axes: how many of its last axes the waves run over.
        decay: amplitudes fall as frequency to the minus this; 0 treats all alike.
    """

    shape: tuple[int, ...]
    axes: int
    decay: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.axes <= len(self.shape) or self.decay < 0:
            raise BadInput(f"waves over {self.axes} axes of {self.shape}", f"from 1 to {len(self.shape)}")

    @property
    def coefficients(self) -> tuple[int, ...]:
        """The shape of what is optimised for one input: real and imaginary parts last."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1, 2)

    @property
    def amplitude(self) -> Float[Tensor, ...]:
        """The factor on each frequency; the constant one counts as the slowest wave."""
        over = self.shape[-self.axes :]
        grids = [torch.fft.fftfreq(n, dtype=torch.float64) for n in over[:-1]]
        grids.append(torch.fft.rfftfreq(over[-1], dtype=torch.float64))
        square = sum(g**2 for g in torch.meshgrid(*grids, indexing="ij"))
        slowest = 1.0 / max(over)
        frequency = torch.as_tensor(square).sqrt().clamp(min=slowest)
        return (frequency / slowest) ** -self.decay

    def __call__(self, x: Float[Tensor, "n *coefficients two"]) -> Float[Tensor, n * shape]:
        """The inputs that coefficients stand for."""
        spectrum = torch.view_as_complex(x.contiguous()) * self.amplitude.to(x.device, x.dtype)
        dims = tuple(range(-self.axes, 0))
        size = math.sqrt(math.prod(self.shape[-self.axes :]))
        made: Tensor = torch.fft.irfftn(spectrum, s=self.shape[-self.axes :], dim=dims) * size
        return made
