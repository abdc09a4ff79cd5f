"""Sparse products for training: their cost goes with the latents that fire, not with all there are.

A dictionary with n latents of which k fire does one dense product for each batch, the pre-activations.
Everything else is a weighted sum of table rows: decoding sums decoder rows over a position's latents, and
a weight's gradient sums positions over a latent's firings, which is the same sum with the list of picks
read the other way. `embedding_bag` does both without ever making a positions × k × width array, each sum in
a fixed order, so that results repeat to the bit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Picks:
    """Which latents each position picked, and the same list sorted by latent.

    Args:
        indices: latents, each at most once in a row.
        width: number of latents.
    """

    def __init__(self, indices: Int[Tensor, "n k"], width: int) -> None:
        self.indices, self.width = indices, width

    @cached_property
    def order(self) -> Int[Tensor, " nk"]:
        """The flat list of picks, sorted by latent and then by position."""
        return self.indices.reshape(-1).argsort(stable=True)

    @cached_property
    def positions(self) -> Int[Tensor, " nk"]:
        """The position of each pick, in that order."""
        return torch.div(self.order, self.indices.shape[1], rounding_mode="floor")

    @cached_property
    def starts(self) -> Int[Tensor, " width"]:
        """Where each latent's picks begin in that order."""
        counts = torch.bincount(self.indices.reshape(-1), minlength=self.width)
        return counts.cumsum(0) - counts

    def over_latents(
        self, values: Float[Tensor, "n k"], table: Float[Tensor, "n d"]
    ) -> Float[Tensor, "width d"]:
        """For each position, the sum over latents that picked it of value times the table's row."""
        weights = values.reshape(-1)[self.order]
        return F.embedding_bag(
            self.positions, table, self.starts, mode="sum", per_sample_weights=weights.contiguous()
        )


class _TableGradient(torch.autograd.Function):
    """Adds the table's gradient to a sum of its rows that was made without it."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, table: Tensor, values: Tensor, picks: Picks) -> Tensor:
        ctx.save_for_backward(values)
        ctx.picks = picks
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        (values,) = ctx.saved_tensors
        return gradient, ctx.picks.over_latents(values, gradient), None, None


def decode(
    picks: Picks, values: Float[Tensor, "n k"], table: Float[Tensor, "width d"]
) -> Float[Tensor, "n d"]:
    """For each position, the sum of its picks' table rows times their values; differentiable in both."""
    if not values.shape[1]:  # nothing was picked anywhere, which embedding_bag refuses
        return values @ table[:0]
    out = F.embedding_bag(picks.indices, table.detach(), mode="sum", per_sample_weights=values)
    if not table.requires_grad:
        return out
    return _TableGradient.apply(out, table, values.detach(), picks)  # type: ignore[no-untyped-call, no-any-return]


class _EncoderGradient(torch.autograd.Function):
    """Gives the picked pre-activations their gradients with respect to encoder and bias."""

    @staticmethod
    def forward(ctx: Any, picked: Tensor, encoder: Tensor, bias: Tensor, x: Tensor, picks: Picks) -> Tensor:
        ctx.save_for_backward(x)
        ctx.picks = picks
        return picked.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        (x,) = ctx.saved_tensors
        ones = x.new_ones((len(x), 1))
        encoder = ctx.picks.over_latents(gradient, x)
        bias = ctx.picks.over_latents(gradient, ones).squeeze(1)
        return None, encoder, bias, None, None


def picked(
    picks: Picks,
    pre: Float[Tensor, "n width"],
    encoder: Float[Tensor, "width d"],
    bias: Float[Tensor, " width"],
    x: Float[Tensor, "n d"],
) -> Float[Tensor, "n k"]:
    """The picked pre-activations, differentiable in encoder and bias (not in ``x``).

    Args:
        picks: which.
        pre: x · encoderᵀ + bias, made without gradients.
        encoder: its rows.
        bias: of each latent.
        x: what was encoded.
    """
    values = pre.gather(1, picks.indices)
    return _EncoderGradient.apply(values, encoder, bias, x, picks)  # type: ignore[no-untyped-call, no-any-return]
