"""How the products of a training step are made: in which precision, and by whose code.

A step needs few kinds of them: weighted sums of table rows, over a position's latents or over a latent's positions,
dot products of rows with table rows, and dense products. Here they are made by torch; `prosect.decompose.fused` makes
the sparse ones on a GPU. In bfloat16 what is multiplied is rounded and what is added up is not: codes, sums and
weights stay in float32, so nothing that training keeps is ever rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import Unsupported
from prosect.decompose.recipe import Recipe

if TYPE_CHECKING:
    from prosect.decompose.kernels import Picks

PRECISION = {False: "float32", True: "bfloat16"}


@dataclass(frozen=True)
class Products:
    """Products by torch, on any device.

    Attributes:
        short: whether rows of tables, and both sides of dense products, are rounded to bfloat16.
        why: why it is these and no others, where that is worth saying.
    """

    by: ClassVar[str] = "torch"

    short: bool = False
    why: str = ""

    @property
    def words(self) -> str:
        """What makes them, and in which precision: what records say."""
        return f"{self.by} in {PRECISION[self.short]}"

    @property
    def precise(self) -> Products:
        """The same without rounding."""
        return replace(self, short=False)

    def over_positions(
        self, picks: Picks, values: Float[Tensor, " m"], table: Float[Tensor, "width d"]
    ) -> Float[Tensor, "n d"]:
        """For each position, the sum over its picks of value times the latent's row of the table."""
        return F.embedding_bag(
            picks.latents, self._read(table), picks.bags, mode="sum", per_sample_weights=values.contiguous()
        )

    def over_latents(
        self, picks: Picks, values: Float[Tensor, " m"], table: Float[Tensor, "n d"]
    ) -> Float[Tensor, "width d"]:
        """For each latent, the sum over its picks of value times the position's row of the table."""
        return F.embedding_bag(
            picks.rows[picks.order],
            self._read(table),
            picks.starts,
            mode="sum",
            per_sample_weights=values[picks.order].contiguous(),
        )

    def dots(
        self, picks: Picks, x: Float[Tensor, "n d"], table: Float[Tensor, "width d"]
    ) -> Float[Tensor, " m"]:
        """For each pick, the product of its position's row and its latent's row.

        That is what a weighted sum of table rows has as the gradient of its weights, so torch has it compiled, and
        gathers no rows into a picks × d array.
        """
        dot = torch.ops.aten._embedding_bag_per_sample_weights_backward
        rows, indices = self._read(x).contiguous(), picks.latents
        made: Tensor = dot(rows, self._read(table), indices, picks.bags, picks.rows, 0, -1)
        return made

    def matmul(self, a: Float[Tensor, "n d"], b: Float[Tensor, "d e"]) -> Float[Tensor, "n e"]:
        """The dense product; differentiable."""
        if not self.short:
            return a @ b
        with summed_in_full():
            return (a.bfloat16() @ b.bfloat16()).to(a.dtype)

    def affine(
        self, bias: Float[Tensor, " e"], x: Float[Tensor, "n d"], weight: Float[Tensor, "e d"]
    ) -> Float[Tensor, "n e"]:
        """x · weightᵀ + bias."""
        if not self.short:
            return torch.addmm(bias, x, weight.T)
        return self.matmul(x, weight.T) + bias

    def _read(self, table: Tensor) -> Tensor:
        """A table as its rows are read; its sums are made in its own precision."""
        return table.bfloat16().to(table.dtype) if self.short else table


PLAIN = Products()
"""Torch in float32: what every other way is compared with."""


@contextmanager
def summed_in_full() -> Iterator[None]:
    """Products in bfloat16 whose sums are made in float32 throughout, which a GPU may otherwise not do."""
    if not torch.cuda.is_available():
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = before


def products_for(recipe: Recipe, device: str) -> Products:
    """The products that a recipe asks for on a device.

    ``kernels="auto"`` takes Triton's on a CUDA device where Triton can be imported, and torch's elsewhere, with the
    reason in `Products.why`.

    Raises:
        Unsupported: ``kernels="triton"`` where they cannot run; the reason is named.
    """
    short, where = recipe.precision == "bfloat16", torch.device(device)
    if recipe.kernels == "torch" or (recipe.kernels == "auto" and where.type != "cuda"):
        return Products(short)
    from prosect.decompose.fused.products import Fused, obstacle

    found = obstacle(where)
    if found is None:
        return Fused(short)
    if recipe.kernels == "triton":
        raise Unsupported(
            f"Triton's kernels on {device}: {found}",
            "a CUDA device and an installed Triton",
            "kernels=auto, which takes torch where Triton cannot run",
        )
    return Products(short, found)
