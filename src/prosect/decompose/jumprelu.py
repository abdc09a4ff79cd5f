"""Training a threshold for each latent, by straight-through gradients: JumpReLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import Picks
from prosect.decompose.objective import Folded, Objective, Outcome, Step, require
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.sparsity import Sparsity, Threshold


@dataclass(frozen=True)
class JumpReLU(Objective):
    """z = π · 1[π > θ], and a price for every latent that fires.

    Rajamanoharan et al. 2024, "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
    autoencoders". Neither the jump nor the count has a useful gradient in θ; in its stead stands that of
    their mean over pre-activations, estimated with a rectangle of width ``bandwidth`` around the
    threshold: ∂z/∂θ ≈ -(θ/ε) 1[|π - θ| < ε/2] and ∂1[π > θ]/∂θ ≈ -(1/ε) 1[|π - θ| < ε/2].

    Args:
        target_l0: latents that should fire at a position: the penalty is weight · (L0 / target - 1)². None for
            weight · L0.
        weight: of the penalty; None for 1 with a target, and for 0.001 without one: a latent must then
            explain a thousandth of the variance where it fires.
        bandwidth: ε, in units of the pre-activations of a unit direction in activations with mean square 1
            in each dimension.
        start: of the thresholds, in the same units.
        warmup: share of the training over which the weight rises from 0.
    """

    name: ClassVar[str] = "jumprelu"

    target_l0: float | None = None
    weight: float | None = None
    bandwidth: float = 0.1
    start: float = 0.1
    warmup: float = 0.05

    def __post_init__(self) -> None:
        require(self.target_l0 is None or self.target_l0 > 0, f"a target L0 of {self.target_l0}", "above 0")
        require(self.price >= 0, f"a penalty of weight {self.weight}", "at least 0")
        require(self.bandwidth > 0, f"a bandwidth of {self.bandwidth}", "above 0")
        require(self.start >= 0, f"thresholds that start at {self.start}", "at least 0")
        require(0 <= self.warmup <= 1, f"a warm-up of {self.warmup}", "a share from 0 to 1")

    @property
    def after(self) -> Sparsity:
        """A threshold for each latent."""
        return Threshold()

    @property
    def target(self) -> float | None:
        """The target L0."""
        return self.target_l0

    @property
    def price(self) -> float:
        """The weight of the penalty."""
        return self.weight if self.weight is not None else 1e-3 if self.target_l0 is None else 1.0

    def extra(self, latents: int) -> dict[str, Tensor]:
        """The thresholds."""
        return {"threshold": torch.full((latents,), self.start)}

    def select(
        self, pre: Float[Tensor, "n latents"], learned: Mapping[str, Tensor], ranks: Ranks = ALONE
    ) -> Picks:
        """Those above the threshold, and those so little below that they bear on its gradient."""
        near = pre > learned["threshold"] - self.bandwidth / 2
        return Picks.where(near)

    def loss(self, step: Step) -> Outcome:
        """The error, and the price of how many fire."""
        codes, fired = _Jump.apply(  # type: ignore[no-untyped-call]
            step.values, step.learned["threshold"], step.picks, self.bandwidth
        )
        residual = step.target - step.made(codes)
        l0: Tensor = step.ranks.total(fired / step.picks.n)
        warm = min(1.0, step.progress / self.warmup) if self.warmup else 1.0
        if self.target_l0 is not None:
            l0 = (l0 / self.target_l0 - 1).square()
        return Outcome(codes, residual, step.error(residual) + warm * self.price * l0)

    def settle(self, learned: Mapping[str, Tensor]) -> None:
        """No threshold falls below 0."""
        learned["threshold"].clamp_(min=0.0)

    def fold(
        self,
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        learned: Mapping[str, Tensor],
    ) -> Folded:
        """As it is."""
        return Folded(encoder, bias, learned["threshold"].clone())


class _Jump(torch.autograd.Function):
    """π · 1[π > θ] of all picks, and how many are above; a few rows at a time, which a processor's cache can hold."""

    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, threshold: Tensor, picks: Picks, bandwidth: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        ctx.picks, ctx.bandwidth = picks, bandwidth
        codes, fired, level = torch.empty_like(pre), pre.new_zeros(()), picks.across(threshold)
        for some, out in zip(picks.blocks(pre), picks.blocks(codes), strict=True):
            above = some > level
            torch.mul(some, above, out=out)
            fired += above.count_nonzero()
        return codes, fired

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (pre, threshold), picks = ctx.saved_tensors, ctx.picks
        of_codes, of_fired = gradients
        level = picks.across(threshold)
        of_pre, of_level = torch.empty_like(pre), torch.zeros_like(level)
        blocks = (picks.blocks(pre), picks.blocks(of_codes.contiguous()), picks.blocks(of_pre))
        for some, given, out in zip(*blocks, strict=True):
            torch.mul(given, some > level, out=out)
            near = (some - level).abs_() < ctx.bandwidth / 2
            of_level -= (torch.addcmul(of_fired, given, level) * near).sum(dim=0)
        return of_pre, picks.added(of_level / ctx.bandwidth), None, None
