"""The k largest pre-activations, exactly, at the price of a product in half the precision.

Which latents fire is decided by the k largest of x · encoderᵀ + bias, and finding them in float32 costs the one dense
product that training cannot avoid. Processors with bfloat16 units make that product four times faster, with errors
that can be bounded. So: screen all latents in bfloat16, compute those that come near in float32, and check, row by row,
that none of the others can have been among the k largest. Rows for which that cannot be shown are done densely.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.provenance import bfloat16_units
from prosect.decompose.kernels import Picks
from prosect.decompose.products import PLAIN, Products, summed_in_full
from prosect.decompose.sparsity import GROUP, floor_of_all, largest, some_largest

SPARE = 32
"""Candidates beyond k that are computed in float32."""
ROUNDOFF = 2.0**-8
"""Relative error of rounding to bfloat16, at most: half of the distance between 1 and the next number."""
SUMMING = 2.0**-23
"""Relative error of each addition in float32."""
SHORT = torch.bfloat16
COLUMNS = 32
"""What the units multiply at once: a product's inner size is best a multiple of it."""
CACHED = 512
"""Rows of the encoder whose rounding is looked at at a time, so that they stay in the processor's cache."""
ENOUGH = 2**22
"""Entries of an encoder below which a product in float32 is quicker than screening."""


class Largest(NamedTuple):
    """Which latents, their pre-activations in float32, and how many rows had to be done densely."""

    indices: Int[Tensor, "n k"]
    values: Float[Tensor, "n k"]
    dense: int


@cache
def available() -> bool:
    """See `bfloat16_units`; every record of a fit says which it was."""
    return bfloat16_units()


def worthwhile(encoder: Tensor, k: int, products: Products = PLAIN) -> bool:
    """Whether screening is quicker here than one product in float32, or wanted where products are made in bfloat16."""
    latents = len(encoder)
    fits = latents % GROUP == 0 and latents // GROUP >= 2 * (k + SPARE) and encoder.dtype == torch.float32
    large = encoder.numel() >= ENOUGH and encoder.device.type == "cpu"
    return fits and (products.short or (large and available()))


def screened(
    x: Float[Tensor, "n d"],
    encoder: Float[Tensor, "latents d"],
    bias: Float[Tensor, " latents"],
    k: int,
    products: Products = PLAIN,
) -> Largest:
    """The ``k`` largest of each row of x · encoderᵀ + bias; as `torch.topk` in float32, but for ties in rounding.

    A latent that is no candidate screened no higher than the last candidate; if even with the largest error
    (`_errors`) it stays below the k-th value in float32, it is none of the k largest.

    Args:
        x: rows.
        encoder: a row for each latent; their number is a multiple of `GROUP`, and at least 2 · GROUP · (k + SPARE).
        bias: of each latent.
        k: how many.
        products: what makes those in float32, without rounding whatever it says.
    """
    screen = _products_and_bias(x, encoder, bias)
    candidates = some_largest(screen, k + SPARE)
    floor = screen.gather(1, candidates).amin(dim=1).float()
    exact = dots(candidates, x, encoder, products.precise) + bias[candidates]
    best = exact.topk(k, dim=1, sorted=False)
    indices, values = candidates.gather(1, best.indices), best.values
    error = _errors(x, encoder) + ROUNDOFF * (floor.abs() + bias.abs().amax())
    unsure = (values.amin(dim=1) < floor + error).nonzero().squeeze(1)
    if len(unsure):
        pre = torch.addmm(bias, x[unsure], encoder.T)
        indices[unsure] = largest(pre, k)
        values[unsure] = pre.gather(1, indices[unsure])
    return Largest(indices, values, len(unsure))


class OfAll(NamedTuple):
    """Where in the rows × latents array laid flat, ascending, and what there is in float32."""

    places: Int[Tensor, " count"]
    values: Float[Tensor, " count"]


def screened_of_all(
    x: Float[Tensor, "n d"],
    encoder: Float[Tensor, "latents d"],
    bias: Float[Tensor, " latents"],
    count: int,
    products: Products = PLAIN,
) -> OfAll | None:
    """The ``count`` largest of the whole of x · encoderᵀ + bias, but for ties in rounding; None if it cannot tell.

    At least ``count`` entries screen at some floor, so the count-th in float32 is at most the error below it, and
    what screens lower than twice the error below it is none of them.

    Args:
        x: rows.
        encoder: a row for each latent.
        bias: of each latent.
        count: how many.
        products: what makes those in float32, without rounding whatever it says.
    """
    screen = _products_and_bias(x, encoder, bias)
    floor = floor_of_all(screen, count)
    if floor is None:
        return None
    error = _errors(x, encoder).amax() + ROUNDOFF * (floor.abs().float() + bias.abs().amax())
    lowest = floor.float() - 2 * error
    near = (screen.reshape(-1) >= lowest - ROUNDOFF * lowest.abs()).nonzero().squeeze(1)
    if len(near) < count:  # NaN among them
        return None
    rows = torch.div(near, len(encoder), rounding_mode="floor")
    latents = near - rows * len(encoder)
    picks = Picks(rows, latents, len(x), len(encoder))
    exact = products.precise.dots(picks, x, encoder) + bias[latents]
    best = exact.topk(count, sorted=False).indices.sort().values
    return OfAll(near[best], exact[best])


def _errors(x: Tensor, encoder: Tensor) -> Float[Tensor, " n"]:
    """How far from float32 the products of a row may be before they are rounded, at most.

    ‖x - x̃‖ ‖w‖ + ‖x̃‖ ‖w - w̃‖ (Cauchy and Schwarz; tildes are rounded), and what summing in float32 adds. Rounding is
    measured, not bounded: it takes less than half of what it might.
    """
    near, longest, lost = x.bfloat16(), x.new_zeros(()), x.new_zeros(())
    for rows in torch.split(encoder, CACHED if encoder.device.type == "cpu" else max(1, len(encoder))):
        longest = torch.maximum(longest, torch.linalg.vector_norm(rows, dim=1).amax())
        lost = torch.maximum(lost, torch.linalg.vector_norm(rows - rows.bfloat16(), dim=1).amax())
    length = near.float().norm(dim=1)
    out: Tensor = longest * (x - near).norm(dim=1) + length * (lost + longest * x.shape[1] * SUMMING)
    return out


def _products_and_bias(x: Tensor, encoder: Tensor, bias: Tensor) -> Tensor:
    """x · encoderᵀ + bias in bfloat16, the bias as one more column, which is cheaper than adding it."""
    (n, width), latents = x.shape, len(encoder)
    padded = (width // COLUMNS + 1) * COLUMNS
    left, right = x.new_zeros((n, padded), dtype=SHORT), x.new_zeros((latents, padded), dtype=SHORT)
    left[:, :width], right[:, :width] = x, encoder
    left[:, width], right[:, width] = 1.0, bias
    with summed_in_full():
        return left @ right.T


def dots(
    indices: Int[Tensor, "n k"],
    x: Float[Tensor, "n d"],
    table: Float[Tensor, "latents d"],
    products: Products = PLAIN,
) -> Float[Tensor, "n k"]:
    """Each row's product with the table rows it names, without gathering them into an n × k × d array."""
    return products.dots(Picks.fixed(indices, len(table)), x, table).view(indices.shape)
