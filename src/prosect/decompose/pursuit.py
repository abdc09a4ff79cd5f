"""Matching pursuit: codes found one at a time, each explaining what those before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.contract import Codes


class Found(NamedTuple):
    """The latent that a round adds at each position.

    Attributes:
        fits: how much of its direction there is in what is left.
        latent: which it is.
        direction: what it writes, with norm 1.
        norm: of what it writes.
    """

    fits: Float[Tensor, " n"]
    latent: Int[Tensor, " n"]
    direction: Float[Tensor, "n d"]
    norm: Float[Tensor, " n"]


def alone(found: Found) -> Found:
    """Where nobody else has latents, what was found is what is taken."""
    return found


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

    def pursue(
        self,
        x: Float[Tensor, "n d"],
        decoder: Float[Tensor, "latents d"],
        agreed: Callable[[Found], Found] = alone,
        width: int | None = None,
    ) -> Codes:
        """The codes of what remains of activations once the offset is taken off.

        Args:
            x: activations less the offset.
            decoder: a row for each latent; rows of zeros are never chosen.
            agreed: what is taken in a round, given the best of these latents; for latents that lie in several places.
            width: how many latents there are in all; None for those of ``decoder``.
        """
        norms = decoder.norm(dim=1)
        units = decoder / torch.where(norms > 0, norms, 1.0)[:, None]
        residual, indices, values = x.clone(), [], []
        for _ in range(self.k):
            best, chosen = (residual @ units.T).max(dim=1)
            found = agreed(Found(best, chosen, units[chosen], norms[chosen]))
            moved = torch.relu(found.fits)
            residual -= moved[:, None] * found.direction
            indices.append(found.latent)
            values.append(torch.where(found.norm > 0, moved / found.norm, 0.0))
        width = len(decoder) if width is None else width
        return _added(torch.stack(indices, dim=1), torch.stack(values, dim=1), width)


def _added(indices: Tensor, values: Tensor, width: int) -> Codes:
    """Codes in which what was chosen several times stands once, with its sum."""
    same = indices[:, :, None] == indices[:, None, :]
    earlier = torch.tril(same, diagonal=-1).any(dim=2)
    return Codes(indices, torch.where(earlier, 0.0, (same * values[:, None, :]).sum(dim=2)), width)
