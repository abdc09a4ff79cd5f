"""Matching pursuit: codes found one at a time, each explaining what those before it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.contract import Codes


@dataclass(frozen=True)
class Pursuit:
    """k rounds of non-negative matching pursuit with the decoder; the encoder is not used.

    In each round the latent that explains most of the residual is added with the code that explains it best; a
    latent may be chosen again, and its codes add up. It costs k times an encoder's product, and finds codes
    that no encoder of one layer can where latents overlap. Mallat & Zhang 1993, "Matching pursuits with
    time-frequency dictionaries"; for dictionaries of features Costa et al. 2025, "From flat to hierarchical:
    extracting sparse representations with matching pursuit".

    Args:
        k: rounds; at most so many latents fire.
    """

    name: ClassVar[str] = "pursuit"
    thresholded: ClassVar[bool] = False

    k: int

    def check(self, latents: int) -> None:
        """Raises BadInput unless 1 ≤ k ≤ latents."""
        if not 1 <= self.k <= latents:
            raise BadInput(f"{self.k} rounds over {latents} latents", f"1 to {latents}")

    def codes(self, pre: Float[Tensor, "n latents"], threshold: Float[Tensor, " latents"] | None) -> Codes:
        """Raises Unsupported: pre-activations do not determine its codes."""
        raise Unsupported(
            "matching pursuit on pre-activations", "activations and a decoder", "Dictionary.encode"
        )

    def pursue(self, x: Float[Tensor, "n d"], decoder: Float[Tensor, "latents d"]) -> Codes:
        """The codes of what remains of activations once the offset is taken off.

        Args:
            x: activations less the offset.
            decoder: a row for each latent; rows of zeros are never chosen.
        """
        norms = decoder.norm(dim=1)
        units = decoder / torch.where(norms > 0, norms, 1.0)[:, None]
        residual, indices, values = x.clone(), [], []
        for _ in range(self.k):
            best, chosen = (residual @ units.T).max(dim=1)
            moved = torch.relu(best)
            residual -= moved[:, None] * units[chosen]
            indices.append(chosen)
            values.append(torch.where(norms[chosen] > 0, moved / norms[chosen], 0.0))
        return _added(torch.stack(indices, dim=1), torch.stack(values, dim=1), len(decoder))


def _added(indices: Tensor, values: Tensor, width: int) -> Codes:
    """Codes in which what was chosen several times stands once, with its sum."""
    same = indices[:, :, None] == indices[:, None, :]
    earlier = torch.tril(same, diagonal=-1).any(dim=2)
    return Codes(indices, torch.where(earlier, 0.0, (same * values[:, None, :]).sum(dim=2)), width)
