"""Training with a fixed number of latents: at each position, over a batch, and nested in prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import Picks, decode
from prosect.decompose.objective import Chosen, Objective, Outcome, Step, require
from prosect.decompose.products import PLAIN, Products
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.screening import screened, screened_of_all, worthwhile
from prosect.decompose.sparsity import Sparsity, Threshold, TopK

SHARES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
"""Prefixes of Matryoshka unless told otherwise: groups of 1/32, 1/16, 1/8, 1/4 and the rest of the latents."""


@dataclass(frozen=True)
class EachTopK(Objective):
    """The k largest at each position; what `TopK` dictionaries are trained with.

    Gao et al. 2024, "Scaling and evaluating sparse autoencoders".

    Args:
        k: latents at each position.
    """

    name: ClassVar[str] = "topk"
    exact: ClassVar[bool] = True

    k: int

    @property
    def after(self) -> Sparsity:
        """TopK with the same k."""
        return TopK(self.k)

    @property
    def target(self) -> float:
        """k."""
        return float(self.k)

    def select(
        self, pre: Float[Tensor, "n latents"], learned: Mapping[str, Tensor], ranks: Ranks = ALONE
    ) -> Picks:
        """The k largest of each row."""
        return ranks.largest(pre, self.k)

    def screen(
        self,
        x: Float[Tensor, "n reads"],
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        products: Products = PLAIN,
    ) -> Chosen | None:
        """The k largest of each row, found in bfloat16 first."""
        if not worthwhile(encoder, self.k, products):
            return None
        found = screened(x, encoder, bias, self.k, products)
        return Chosen(Picks.fixed(found.indices, len(encoder)), found.values.reshape(-1))


@dataclass(frozen=True)
class Pursued(EachTopK):
    """Trained as the k largest at each position, encoded by k rounds of matching pursuit afterwards.

    Training needs an encoder, which finds all latents at once; what it learned to write can be searched with more
    care (`Pursuit`, for the sources). Codes found so need the decoder alone.

    Args:
        k: rounds, and latents at each position while training.
    """

    name: ClassVar[str] = "pursuit"

    @property
    def after(self) -> Sparsity:
        """Pursuit of as many rounds."""
        return Pursuit(self.k)


@dataclass(frozen=True)
class BatchTopK(Objective):
    """The k · n largest in a batch of n positions, so that positions may have more latents or fewer.

    Bussmann, Leask & Nanda 2024, "BatchTopK sparse autoencoders". A position's codes must not depend on
    others once training is over, so it ends with one threshold, calibrated on activations after the last
    step: one averaged while training would lag behind weights that still move.

    Args:
        k: mean number of latents at a position.
    """

    name: ClassVar[str] = "batchtopk"
    exact: ClassVar[bool] = True
    calibrated: ClassVar[bool] = True

    k: int

    @property
    def after(self) -> Sparsity:
        """One threshold for all latents."""
        return Threshold()

    @property
    def target(self) -> float:
        """k."""
        return float(self.k)

    def check(self, latents: int) -> None:
        """Raises BadInput unless 1 ≤ k ≤ latents."""
        TopK(self.k).check(latents)

    def select(
        self, pre: Float[Tensor, "n latents"], learned: Mapping[str, Tensor], ranks: Ranks = ALONE
    ) -> Picks:
        """The k · n largest of all, where they are positive."""
        n, latents = pre.shape
        places = ranks.largest_of_all(pre, self.k * ranks.positions(n))
        return Picks.at(places[pre.reshape(-1)[places] > 0], n, latents)

    def screen(
        self,
        x: Float[Tensor, "n reads"],
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        products: Products = PLAIN,
    ) -> Chosen | None:
        """The k · n largest of all, found in bfloat16 first."""
        n, latents = len(x), len(encoder)
        if not worthwhile(encoder, self.k, products):
            return None
        found = screened_of_all(x, encoder, bias, self.k * n, products)
        if found is None:
            return None
        fires = found.values > 0
        return Chosen(Picks.at(found.places[fires], n, latents), found.values[fires])


@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """BatchTopK whose first latents must also do well without the others, for several numbers of them.

    Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders". The error is the
    mean over prefixes (the paper's is the sum, which Adam cannot tell from it but for the weight of the
    auxiliary loss). What a prefix makes is what the one before made and the next group's part, so all of
    them together cost one decoding, whose sums are kept apart by group.

    Args:
        k: mean number of latents at a position, of all prefixes together.
        prefixes: how many latents each prefix has, ascending; the last is all of them. Empty for groups of
            1/32, 1/16, 1/8, 1/4 and the rest.
    """

    name: ClassVar[str] = "matryoshka"
    several: ClassVar[bool] = True

    prefixes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(self.prefixes))

    def check(self, latents: int) -> None:
        """Raises BadInput unless the prefixes ascend from at least 1 up to all latents."""
        super().check(latents)
        sizes = self.sizes(latents)
        ascending = all(a < b for a, b in zip((0, *sizes), sizes, strict=False))
        require(
            ascending and sizes[-1] == latents,
            f"prefixes {sizes} of {latents} latents",
            f"sizes that ascend from at least 1 to {latents}",
        )

    def sizes(self, latents: int) -> tuple[int, ...]:
        """How many latents each prefix of that many has."""
        return self.prefixes or tuple(sorted({max(1, round(share * latents)) for share in SHARES}))

    def loss(self, step: Step) -> Outcome:
        """The mean over prefixes of what each leaves."""
        codes, ranks = self.fire(step), step.ranks
        here, width = step.decoder.shape
        latents = ranks.latents(here)
        sizes = torch.tensor(self.sizes(latents), device=codes.device) - ranks.span(latents).start
        parts = ranks.whole(decode(step.picks.grouped(sizes.clamp(0, here)), codes, step.decoder))
        parts = parts.view(-1, len(sizes), width)
        rest = step.target - step.offset
        if step.around is not None:
            rest = rest - step.around
        error, residual = _PrefixError.apply(parts, rest)  # type: ignore[no-untyped-call]
        return Outcome(codes, residual, error)


class _PrefixError(torch.autograd.Function):
    """The mean square of what each prefix leaves, and what the last leaves (without a gradient).

    Written out, because running sums forwards and backwards would otherwise take half of a step's time.
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        residuals = torch.empty_like(parts)
        left = rest
        for group in range(parts.shape[1]):
            left = torch.sub(left, parts[:, group], out=residuals[:, group])
        ctx.save_for_backward(residuals)
        final = left.clone()
        ctx.mark_non_differentiable(final)
        return torch.linalg.vector_norm(residuals).square() / parts.numel(), final

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (residuals,) = ctx.saved_tensors
        each = -2 * float(gradients[0]) / residuals.numel()
        out = torch.empty_like(residuals)
        below = torch.mul(residuals[:, -1], each, out=out[:, -1])
        for group in range(residuals.shape[1] - 2, -1, -1):  # a part is in its own prefix and all longer ones
            below = torch.add(below, residuals[:, group], alpha=each, out=out[:, group])
        return out, -out[:, 0]
