"""Sparse products for training: their cost goes with the latents that fire, not with all there are.

A dictionary with n latents of which k fire does one dense product for each batch, the pre-activations.
Everything else is a weighted sum of table rows: decoding sums decoder rows over a position's latents, and
a weight's gradient sums positions over a latent's firings, which is the same sum with the list of picks
read the other way. `Products` make both without ever making a positions × k × width array, each sum in
a fixed order, so that results repeat to the bit. Where so many latents fire that dense products are cheaper,
as under an L1 penalty that has just begun to bite, those are used, and no list is made of what fires.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.decompose.products import PLAIN, Products

CROWDED = 1 / 16
"""Share of latents picked above which dense products are cheaper."""

BLOCK = 2**16
"""Values that work on all latents takes at a time."""


class Picks:
    """Which latents each position picked, and the same list sorted by latent.

    Args:
        rows: position of each pick, ascending.
        latents: its latent, at most once for each position.
        n: number of positions.
        width: number of latents.
        crowded: whether to multiply densely.

    Attributes:
        products: what makes sums over them.
    """

    products: Products = PLAIN

    def __init__(
        self, rows: Int[Tensor, " m"], latents: Int[Tensor, " m"], n: int, width: int, crowded: bool = False
    ) -> None:
        self.rows, self.latents = rows.contiguous(), latents.contiguous()
        self.n, self.width, self.crowded = n, width, crowded

    @classmethod
    def fixed(cls, indices: Int[Tensor, "n k"], width: int) -> Picks:
        """The same number of latents at each position."""
        n, k = indices.shape
        every = torch.arange(n, device=indices.device)
        made = cls(every.repeat_interleave(k), indices.reshape(-1), n, width)
        made.bags = every * k
        return made

    @classmethod
    def at(cls, places: Int[Tensor, " m"], n: int, width: int) -> Picks:
        """Places in the n × width array laid flat, ascending: as many latents at each position as fall there."""
        rows = torch.div(places, width, rounding_mode="floor")
        return cls(rows, places - rows * width, n, width, len(places) > CROWDED * n * width)

    @classmethod
    def where(cls, chosen: Bool[Tensor, "n width"]) -> Picks:
        """Those chosen; where they crowd, every latent, so whoever asks must give those not chosen a code of 0."""
        n, width = chosen.shape
        if int(chosen.count_nonzero()) > CROWDED * chosen.numel():
            return Every(n, width, chosen.device)
        return cls.at(chosen.reshape(-1).nonzero().squeeze(1), n, width)

    def grouped(self, boundaries: Int[Tensor, " groups"]) -> Picks:
        """The same picks with each position split in groups of latents, numbered position × groups + group.

        Args:
            boundaries: the latent before which each group ends, ascending; the last is the width. Within a
                position, picks must ascend by latent.
        """
        group = torch.bucketize(self.latents, boundaries, right=True)
        count = len(boundaries)
        made = Picks(self.rows * count + group, self.latents, self.n * count, self.width)
        made.order, made.starts, made.products = self.order, self.starts, self.products
        return made

    @cached_property
    def places(self) -> Int[Tensor, " m"]:
        """Where the picks are in the positions × width array laid flat."""
        return self.rows * self.width + self.latents

    @cached_property
    def bags(self) -> Int[Tensor, " n"]:
        """Where each position's picks begin."""
        counts = torch.bincount(self.rows, minlength=self.n)
        return counts.cumsum(0) - counts

    @cached_property
    def order(self) -> Int[Tensor, " m"]:
        """The list of picks sorted by latent and then by position."""
        return self.latents.argsort(stable=True)

    @cached_property
    def starts(self) -> Int[Tensor, " width"]:
        """Where each latent's picks begin in that order."""
        counts = torch.bincount(self.latents, minlength=self.width)
        return counts.cumsum(0) - counts

    def among(self, pre: Float[Tensor, "n width"]) -> Float[Tensor, " m"]:
        """The picks' entries of an array of all."""
        return pre.reshape(-1)[self.places]

    def spread(self, parameter: Float[Tensor, " width"]) -> Float[Tensor, " m"]:
        """For each pick, the number that belongs to its latent."""
        return parameter[self.latents]

    def blocks(self, values: Float[Tensor, " m"]) -> tuple[Float[Tensor, "rows across"], ...]:
        """Views of the values, a few rows at a time, for work that goes element by element."""
        return (values.view(1, -1),)

    def across(self, parameter: Float[Tensor, " width"]) -> Float[Tensor, " across"]:
        """What belongs to the latents, as wide as a block."""
        return self.spread(parameter)

    def added(self, across: Float[Tensor, " across"]) -> Float[Tensor, " width"]:
        """For each latent, the sum of what is across a block: the gradient of `across`."""
        return self.total(across)

    def fired(self, values: Float[Tensor, " m"]) -> Bool[Tensor, " width"]:
        """Whether each latent has a value above 0."""
        return torch.bincount(self.latents, (values > 0).double(), self.width) > 0

    def dense(self, values: Float[Tensor, " m"]) -> Float[Tensor, "n width"]:
        """The values at their places, zero elsewhere."""
        empty = values.new_zeros(self.n * self.width)
        return empty.scatter(0, self.places, values).view(self.n, self.width)

    def over_latents(
        self, values: Float[Tensor, " m"], table: Float[Tensor, "n d"]
    ) -> Float[Tensor, "width d"]:
        """For each latent, the sum over positions that picked it of value times the table's row."""
        if self.crowded:
            return self.products.matmul(self.dense(values).T, table)
        return self.products.over_latents(self, values, table)

    def total(self, values: Float[Tensor, " m"]) -> Float[Tensor, " width"]:
        """For each latent, the sum of its values."""
        if self.crowded:
            return self.dense(values).sum(dim=0)
        return self.products.precise.over_latents(self, values, values.new_ones((self.n, 1))).squeeze(1)


class Every(Picks):
    """Every latent at every position, in order: what is of its picks is an array of all, laid flat.

    Args:
        n: number of positions.
        width: number of latents.
        device: where lists of them would be.
    """

    def __init__(self, n: int, width: int, device: torch.device) -> None:
        self.n, self.width, self.crowded, self.device = n, width, True, device

    @cached_property
    def places(self) -> Int[Tensor, " m"]:
        """All of them."""
        return torch.arange(self.n * self.width, device=self.device)

    @cached_property
    def rows(self) -> Int[Tensor, " m"]:  # type: ignore[override]
        """Position of each pick; nothing dense needs it."""
        return torch.div(self.places, self.width, rounding_mode="floor")

    @cached_property
    def latents(self) -> Int[Tensor, " m"]:  # type: ignore[override]
        """Latent of each pick; nothing dense needs it."""
        return self.places % self.width

    def among(self, pre: Float[Tensor, "n width"]) -> Float[Tensor, " m"]:
        """The array itself."""
        return pre.reshape(-1)

    def spread(self, parameter: Float[Tensor, " width"]) -> Float[Tensor, " m"]:
        """The numbers of all latents, over and over."""
        return parameter.expand(self.n, -1).reshape(-1)

    def blocks(self, values: Float[Tensor, " m"]) -> tuple[Float[Tensor, "rows across"], ...]:
        """Rows of positions."""
        return torch.split(self.dense(values), max(1, BLOCK // self.width))

    def across(self, parameter: Float[Tensor, " width"]) -> Float[Tensor, " across"]:
        """The numbers of all latents."""
        return parameter

    def added(self, across: Float[Tensor, " across"]) -> Float[Tensor, " width"]:
        """The same: blocks are as wide as the latents are many."""
        return across

    def fired(self, values: Float[Tensor, " m"]) -> Bool[Tensor, " width"]:
        """Whether each latent has a value above 0."""
        return self.dense(values).amax(dim=0) > 0

    def dense(self, values: Float[Tensor, " m"]) -> Float[Tensor, "n width"]:
        """The values, a row for each position."""
        return values.view(self.n, self.width)


class _Decoding(torch.autograd.Function):
    """Sums of table rows; the gradient of a value is a dot product, that of the table a sum of the gradient's rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, picks: Picks) -> Tensor:
        ctx.save_for_backward(values, table)
        ctx.picks = picks
        return picks.products.over_positions(picks, values, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, picks = gradients[0].contiguous(), ctx.picks
        values, table = ctx.saved_tensors
        of_values, of_table, _ = ctx.needs_input_grad
        return (
            picks.products.dots(picks, gradient, table) if of_values else None,
            picks.over_latents(values, gradient) if of_table else None,
            None,
        )


def decode(
    picks: Picks, values: Float[Tensor, " m"], table: Float[Tensor, "width d"]
) -> Float[Tensor, "n d"]:
    """For each position, the sum of its picks' table rows times their values; differentiable in both."""
    if picks.crowded:
        return picks.products.matmul(picks.dense(values), table)
    return _Decoding.apply(values, table, picks)  # type: ignore[no-untyped-call, no-any-return]


class _EncoderGradient(torch.autograd.Function):
    """Gives the picked pre-activations their gradients with respect to encoder and bias."""

    @staticmethod
    def forward(ctx: Any, picked: Tensor, encoder: Tensor, bias: Tensor, x: Tensor, picks: Picks) -> Tensor:
        ctx.save_for_backward(x)
        ctx.picks = picks
        return picked.view_as(picked)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        (x,) = ctx.saved_tensors
        return None, ctx.picks.over_latents(gradient, x), ctx.picks.total(gradient), None, None


def picked(
    picks: Picks,
    values: Float[Tensor, " m"],
    encoder: Float[Tensor, "width d"],
    bias: Float[Tensor, " width"],
    x: Float[Tensor, "n d"],
) -> Float[Tensor, " m"]:
    """The picked pre-activations, differentiable in encoder and bias (not in ``x``).

    Args:
        picks: which.
        values: their pre-activations, of x · encoderᵀ + bias, made without gradients.
        encoder: its rows.
        bias: of each latent.
        x: what was encoded.
    """
    return _EncoderGradient.apply(values, encoder, bias, x, picks)  # type: ignore[no-untyped-call, no-any-return]


class _LatentGradient(torch.autograd.Function):
    """Sums the gradients of a latent's picks in a fixed order, which plain indexing does not promise."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, picks: Picks) -> Tensor:
        ctx.picks = picks
        return picks.spread(parameter)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.picks.total(gradients[0].contiguous()), None


def of_latents(parameter: Float[Tensor, " width"], picks: Picks) -> Float[Tensor, " m"]:
    """For each pick, the number that belongs to its latent; differentiable."""
    return _LatentGradient.apply(parameter, picks)  # type: ignore[no-untyped-call, no-any-return]


def where_positive(values: Tensor, of: Tensor) -> Tensor:
    """The values where ``of`` is above 0, else 0: the gradient of ReLU, which is made of vector instructions."""
    out: Tensor = torch.ops.aten.threshold_backward(values, of, 0.0)
    return out
