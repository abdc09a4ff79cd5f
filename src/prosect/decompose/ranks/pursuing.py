"""Matching pursuit over latents that lie on several ranks: in each round the best of all is taken, by all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.contract import Codes
from prosect.decompose.pursuit import Found, Pursuit
from prosect.decompose.ranks.dealt import Ranks


def pursued(
    pursuit: Pursuit, x: Float[Tensor, "n d"], decoder: Float[Tensor, "here d"], ranks: Ranks
) -> Codes:
    """The codes over all latents, the same on every rank; all ranks call it with the same ``x``.

    Each rank finds the best of its own latents. The ranks compare how well these fit, and the one that has the best
    gives its direction to the others, so that all go on from the same rest. That is n numbers from each rank and
    n · d that are added up in each round; no rank ever has another's latents. Of latents that fit equally well the
    first is taken, as by one process.

    Args:
        pursuit: how many rounds.
        x: activations less the offset.
        decoder: rows of the latents that are here.
        ranks: what latents are dealt to.
    """
    latents = ranks.latents(len(decoder))
    begin = ranks.span(latents).start

    def agreed(own: Found) -> Found:
        mine = ranks.leads(own.fits)
        direction = ranks.whole(torch.where(mine[:, None], own.direction, 0.0))
        numbers = torch.stack([own.fits, own.norm], dim=1)
        fits, norm = ranks.whole(torch.where(mine[:, None], numbers, 0.0)).unbind(dim=1)
        latent = ranks.whole(torch.where(mine, own.latent + begin, 0)[:, None]).squeeze(1)
        return Found(fits, latent, direction, norm)

    with torch.no_grad():
        return pursuit.pursue(x, decoder, agreed, latents)
