"""AuxK: dead latents learn from what is not yet explained."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.decompose.kernels import Picks, decode, picked
from prosect.decompose.ranks.dealt import ALONE, Ranks


def auxiliary_loss(
    residual: Float[Tensor, "n d"],
    x: Float[Tensor, "n e"],
    pre: Float[Tensor, "n latents"],
    encoder: Float[Tensor, "latents e"],
    bias: Float[Tensor, " latents"],
    decoder: Float[Tensor, "latents d"],
    dead: Int[Tensor, " dead"],
    count: int,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    """How much of what is not explained the dead latents leave, had they fired: AuxK.

    The ``count`` dead latents with the largest pre-activations at each position reconstruct the residual,
    without the offset, which belongs to the main reconstruction. The residual is a constant here; the
    gradient reaches encoder, bias and decoder of dead latents alone. Divided by the residual's variance,
    so that it stays of one size while the main loss falls. Gao et al. 2024, appendix A.2.

    Args:
        residual: what the main reconstruction missed.
        x: what was encoded.
        pre: its pre-activations, made without gradients.
        encoder: rows of latents.
        bias: of latents.
        decoder: rows of latents.
        dead: which latents are dead; at least one on some rank.
        count: how many of them may take part at each position, no more than are dead on all ranks.
        ranks: what the work is dealt to.
    """
    target = residual.detach()
    best = ranks.largest(pre[:, dead], count)
    picks = Picks(best.rows, dead[best.latents], len(x), len(encoder))
    codes = torch.relu(picked(picks, pre, encoder, bias, x))
    missed = target - ranks.whole(decode(picks, codes, decoder))
    spread = ranks.mean((target - ranks.mean(target.mean(dim=0))).square().sum())
    return missed.square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)
