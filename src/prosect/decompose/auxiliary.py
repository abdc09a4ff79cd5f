"""AuxK: dead latents learn from what is not yet explained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import CROWDED, Picks, decode, picked


def auxiliary_loss(
    residual: Float[Tensor, "n d"],
    x: Float[Tensor, "n e"],
    encoder: Float[Tensor, "dead e"],
    bias: Float[Tensor, " dead"],
    decoder: Float[Tensor, "dead d"],
    count: int,
) -> Float[Tensor, ""]:
    """How much of what is not explained the dead latents leave, had they fired: AuxK.

    The ``count`` dead latents with the largest pre-activations at each position reconstruct the residual,
    without the offset, which belongs to the main reconstruction. The residual is a constant here; the
    gradient reaches encoder, bias and decoder of dead latents alone. Divided by the residual's variance,
    so that it stays of one size while the main loss falls. Gao et al. 2024, appendix A.2.

    Where many of the dead take part, dense products over them are cheaper than sums over picks.

    Args:
        residual: what the main reconstruction missed.
        x: what was encoded.
        encoder: rows of dead latents; at least one.
        bias: theirs.
        decoder: theirs.
        count: how many of them may take part at each position.
    """
    target, dead = residual.detach(), len(encoder)
    count = min(count, dead)
    with torch.no_grad():
        pre = torch.addmm(bias, x, encoder.T)
        best = pre.topk(count, dim=1, sorted=False).indices
    picks = Picks.fixed(best, dead, crowded=count > CROWDED * dead)
    codes = torch.relu(picked(picks, pre, encoder, bias, x))
    missed = target - decode(picks, codes, decoder)
    spread = (target - target.mean(dim=0)).square().sum()
    return missed.square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)
