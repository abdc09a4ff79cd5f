"""Training a threshold for each latent, by straight-through gradients: JumpReLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import Picks, of_latents
from prosect.decompose.objective import Folded, Objective, Step, require
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

    def fire(self, step: Step) -> Float[Tensor, " m"]:
        """The pre-activations above their threshold."""
        threshold = of_latents(step.learned["threshold"], step.picks)
        return _Jump.apply(step.values, threshold, self.bandwidth)  # type: ignore[no-untyped-call, no-any-return]

    def penalty(self, step: Step, codes: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        """The price of how many fire."""
        threshold = of_latents(step.learned["threshold"], step.picks)
        fired = _Above.apply(step.values.detach(), threshold, self.bandwidth)  # type: ignore[no-untyped-call]
        l0: Tensor = step.ranks.total(fired.sum() / step.picks.n)
        warm = min(1.0, step.progress / self.warmup) if self.warmup else 1.0
        if self.target_l0 is not None:
            l0 = (l0 / self.target_l0 - 1).square()
        return warm * self.price * l0

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
    """π · 1[π > θ]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre > threshold, pre, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        (gradient,) = gradients
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).to(gradient)
        return gradient * (pre > threshold), -gradient * near * threshold / ctx.bandwidth, None


class _Above(torch.autograd.Function):
    """1[π > θ]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        (gradient,) = gradients
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).to(gradient)
        return None, -gradient * near / ctx.bandwidth, None
