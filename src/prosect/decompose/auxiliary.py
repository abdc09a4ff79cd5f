"""AuxK: dead latents learn from what is not yet explained.

The loss and its gradients are written out, because they are dense in the dead latents and zero everywhere else, and
because its products may then be made in bfloat16 where the processor has units for that: they are a pull on latents
that do nothing yet. Which of them take part is decided in float32 all the same, unless training is in bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import where_positive
from prosect.decompose.products import PLAIN, Products, summed_in_full
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.screening import available

LARGE = 2**18
"""Weights of dead latents from which on rounding them to bfloat16 pays."""


class Auxiliary(NamedTuple):
    """The loss, and its gradients with respect to the rows of dead latents."""

    loss: Float[Tensor, ""]
    encoder: Float[Tensor, "dead e"]
    bias: Float[Tensor, " dead"]
    decoder: Float[Tensor, "dead d"]


def auxiliary(
    residual: Float[Tensor, "n d"],
    x: Float[Tensor, "n e"],
    encoder: Float[Tensor, "dead e"],
    bias: Float[Tensor, " dead"],
    decoder: Float[Tensor, "dead d"],
    count: int,
    ranks: Ranks = ALONE,
    products: Products = PLAIN,
) -> Auxiliary:
    """How much of what is not explained the dead latents leave, had they fired.

    The ``count`` dead latents with the largest pre-activations at each position reconstruct the residual,
    without the offset, which belongs to the main reconstruction. The residual is a constant here; the
    gradient reaches encoder, bias and decoder of dead latents alone. Divided by the residual's variance,
    so that it stays of one size while the main loss falls. Gao et al. 2024, appendix A.2.

    Args:
        residual: what the main reconstruction missed.
        x: what was encoded.
        encoder: rows of the dead latents that are here.
        bias: theirs.
        decoder: theirs.
        count: how many of all dead latents may take part at each position.
        ranks: what the work is dealt to.
        products: in which precision.
    """
    with torch.no_grad(), summed_in_full():
        codes = ranks.kept(products.affine(bias, x, encoder), count).relu_()
        spread = ranks.mean((residual - ranks.mean(residual.mean(dim=0))).square().sum())
        spread = spread.clamp(min=torch.finfo(spread.dtype).tiny)
        large = encoder.numel() >= LARGE and encoder.device.type == "cpu" and available()
        short = products.short or large
        of, rows, read = (t.bfloat16() if short else t for t in (codes, decoder, x))
        missed = residual - ranks.whole((of @ rows).to(x.dtype))
        back = missed * (-2.0 / spread)
        back = back.bfloat16() if short else back
        through = where_positive(back @ rows.T, of)
        return Auxiliary(
            missed.square().sum() / spread,
            (through.T @ read).to(x.dtype),
            through.sum(dim=0, dtype=x.dtype),
            (of.T @ back).to(x.dtype),
        )
