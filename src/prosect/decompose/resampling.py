"""Dead latents drawn anew from what is reconstructed badly, for those that no gradient reaches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.decompose.ranks.dealt import ALONE, Ranks

SHARE = 0.2
"""Norm of a new encoder row over the mean norm of the living ones: small enough not to upset the rest."""


class Redrawn(NamedTuple):
    """New rows for some latents.

    Attributes:
        latents: which; at most one for each position that has an error.
        encoder: their rows.
        decoder: their rows, of norm 1.
    """

    latents: Int[Tensor, " some"]
    encoder: Float[Tensor, "some reads"]
    decoder: Float[Tensor, "some writes"]


def redraw(
    dead: Int[Tensor, " dead"],
    x: Float[Tensor, "n reads"],
    residual: Float[Tensor, "n writes"],
    encoder: Float[Tensor, "latents reads"],
    generator: torch.Generator,
    tied: bool,
    masks: tuple[Tensor, Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> Redrawn:
    """New rows that point at what single positions lack.

    Positions are drawn without replacement, with probability in proportion to the square of their squared error,
    as in Bricken et al. 2023, "Towards monosemanticity", appendix "Neuron resampling". A latent
    then writes what its position lacks; it reads the same direction where the dictionary writes what it
    reads, else its position's activation.

    Args:
        dead: latents to draw anew.
        x: activations read, in standard units; at all positions, whatever is dealt.
        residual: what was missed of those written.
        encoder: all rows, of which the living ones set the size.
        generator: of the draw, on the CPU.
        tied: whether the dictionary writes what it reads.
        masks: where encoder and decoder may differ from 0; None for anywhere.
        ranks: what latents are dealt to.
    """
    error = residual.square().sum(dim=1).to("cpu", torch.float64)
    chance = (error / error.max().clamp_min(torch.finfo(torch.float64).tiny)).square()
    before, every = ranks.before(len(dead))
    count = min(every, int((chance > 0).sum()))
    if not count:
        return Redrawn(dead[:0], encoder[:0], residual[:0])
    chosen = torch.multinomial(chance, count, generator=generator).to(x.device)
    chosen = chosen[before : before + len(dead)]
    dead = dead[: len(chosen)]
    decoder, read = residual[chosen], residual[chosen] if tied else x[chosen]
    if masks is not None:
        read, decoder = read * masks[0][dead], decoder * masks[1][dead]
    usable = (read.norm(dim=1) > 0) & (decoder.norm(dim=1) > 0)
    dead, read, decoder = dead[usable], read[usable], decoder[usable]
    living = torch.ones(len(encoder), dtype=torch.bool, device=encoder.device)
    living[dead] = False
    norms, lived = ranks.total(encoder[living].norm(dim=1).sum()), ranks.total(living.double().sum())
    size = norms / lived if lived > 0 else 1.0
    return Redrawn(
        dead,
        SHARE * size * read / read.norm(dim=1, keepdim=True),
        decoder / decoder.norm(dim=1, keepdim=True),
    )
